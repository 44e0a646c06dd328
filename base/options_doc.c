/* docs/config.md out of the table. tests/test_options_doc.c keeps the file in step with it. */
#include "base/bytes.h"
#include "base/clock.h"
#include "base/options_table.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char introduction[] =
    "<!-- Made from base/options_table.c. Do not edit: SLU_WRITE_DOCS=1 build/tests/test_options_doc writes "
    "it anew. -->\n"
    "# Configuration\n"
    "\n"
    "Trainer, scorer and replay read the same YAML file, so they cannot disagree about features or model. It "
    "is checked\n"
    "whole before anything starts; what is wrong is reported with file, line, key and what is allowed:\n"
    "\n"
    "```\n"
    "examples/ads.yaml:31: model.architecture: unknown value 'esm'; allowed: shared_bottom, esmm, mmoe\n"
    "```\n"
    "\n"
    "- `--check` checks and stops. `--dump-config` prints what is in effect, defaults included and secrets "
    "masked.\n"
    "- `--set KEY=VALUE` overrides one key, for every program, as often as wanted: `--set "
    "model.architecture=mmoe`,\n"
    "  `--set model.towers=[64,32]`, `--set kafka.rdkafka.security.protocol=SSL`. Entries of lists go by "
    "index or by name:\n"
    "  `--set funnel.steps[0].window=2h`, `--set features.item_id.dimension=8`.\n"
    "- Durations are a whole number and a unit: `us`, `ms`, `s`, `m`, `h`, `d`. Sizes: `B`, `KiB`, `MiB`, "
    "`GiB`, `TiB`.\n"
    "- A key without a value (or `~`) counts as not written. Anchors and aliases of YAML are not supported.\n"
    "- Keys marked * decide what is learned. They make up the fingerprint of the configuration: equal "
    "fingerprints and\n"
    "  equal events give equal models.\n"
    "\n"
    "The least that works:\n"
    "\n"
    "```yaml\n"
    "funnel:\n"
    "  steps:\n"
    "    - {name: click, window: 30m}\n"
    "    - {name: conversion, window: 2d}\n"
    "features:\n"
    "  - {name: user_id, side: user}\n"
    "  - {name: item_id, side: item}\n"
    "kafka:\n"
    "  brokers: broker-1:9092,broker-2:9092\n"
    "  topics: [impressions, clicks, conversions]\n"
    "```\n";

static const char secrets[] = "\nSecrets: write `sasl.password: ${KAFKA_PASSWORD}` and put the variable into "
                              "a file that only the service can read\n"
                              "(systemd: `EnvironmentFile=`). `--dump-config` shows secrets as `***` and "
                              "logs never hold them. On a command line\n"
                              "(`--set`) every user of the machine could read them.\n";

static void put(slu_buf *out, const char *s)
{
    slu_put_bytes(out, s, strlen(s));
}

static void put_type(slu_buf *out, const slu_opt *o)
{
    static const char *const names[] = {
        [OPT_SECTIONS] = "list of entries",
        [OPT_PAIRS] = "keys and values",
        [OPT_NAME] = "name",
        [OPT_TEXT] = "text",
        [OPT_WORD] = "choice",
        [OPT_LISTEN] = "host:port",
        [OPT_TOPIC] = "topic",
        [OPT_ENUM] = "choice",
        [OPT_BOOL] = "true or false",
        [OPT_U32] = "whole number",
        [OPT_U64] = "whole number",
        [OPT_REAL] = "number",
        [OPT_DURATION] = "duration",
        [OPT_SIZE32] = "size",
        [OPT_SIZE64] = "size",
        [OPT_NAMES] = "list of names",
        [OPT_TEXTS] = "list of texts",
        [OPT_TOPICS] = "list of topics",
        [OPT_WIDTHS] = "list of widths",
        [OPT_REALS] = "list of numbers",
    };
    put(out, names[o->type]);
}

static void put_fallback(slu_buf *out, const slu_opt *o)
{
    if (o->flags & OPT_REQUIRED) {
        put(out, "**required**");
    } else if (o->derived) {
        put(out, o->derived);
    } else if (o->fallback) {
        put(out, "`");
        put(out, o->fallback);
        put(out, "`");
    } else {
        put(out, "none");
    }
}

static void put_bound(slu_buf *out, const slu_opt *o, double v)
{
    char text[40];
    if (o->type == OPT_DURATION)
        slu_format_duration((int64_t)v, text, sizeof text);
    else if (o->type == OPT_SIZE32 || o->type == OPT_SIZE64)
        slu_format_size((uint64_t)v, text, sizeof text);
    else if (o->type == OPT_U64 && v > 1e18)
        snprintf(text, sizeof text, "2^64 - 1");
    else
        snprintf(text, sizeof text, o->type == OPT_REAL || o->type == OPT_REALS ? "%g" : "%.0f", v);
    put(out, text);
}

static void put_allowed(slu_buf *out, const slu_opt *o)
{
    char text[64];
    if (o->choices) {
        for (const slu_opt_choice *k = o->choices; k->name; k++) {
            put(out, k > o->choices ? ", `" : "`");
            put(out, k->name);
            put(out, "`");
        }
    }
    if (o->max > 0 && o->type != OPT_BOOL) {
        put_bound(out, o, o->min);
        put(out, " to ");
        put_bound(out, o, o->max);
    }
    if (slu_opt_is_list(o) || o->type == OPT_SECTIONS) {
        snprintf(text, sizeof text, "%s%" PRIu32 " to %" PRIu32 " entries", o->max > 0 ? "; " : "", o->least,
                 o->most);
        put(out, text);
    }
}

/* For which features a key has a meaning, by asking the rule that refuses it elsewhere. */
static void put_fit(slu_buf *out, const slu_opt *o)
{
    const char *needs = o->transforms ? slu_opt_unfit(o, SLU_NUMERIC, SLU_TRANSFORM_NONE) : NULL;
    if (!needs && o->kinds)
        needs = slu_opt_unfit(o, o->kinds & 1u << SLU_CATEGORICAL ? SLU_CROSS : SLU_CATEGORICAL,
                              SLU_TRANSFORM_NONE);
    if (!needs)
        return;
    put(out, " Only for ");
    put(out, needs);
    put(out, ".");
}

static void put_row(slu_buf *out, const slu_opt *o, const char *name)
{
    put(out, "| `");
    put(out, name);
    put(out, "`");
    put(out, o->flags & OPT_LEARNED ? "* | " : " | ");
    put_type(out, o);
    put(out, " | ");
    put_fallback(out, o);
    put(out, " | ");
    put_allowed(out, o);
    put(out, " | ");
    put(out, o->help);
    put_fit(out, o);
    put(out, " |\n");
}

static void put_rows(slu_buf *out, int parent)
{
    size_t n;
    const slu_opt *o = slu_opts(&n);
    for (size_t i = 0; i < n; i++) {
        if (o[i].parent != parent)
            continue;
        if (o[i].type != OPT_SECTION)
            put_row(out, &o[i], o[i].path);
        put_rows(out, (int)i);
    }
}

/* The sentence about a list that has a chapter of its own. */
static void put_entries(slu_buf *out, const slu_opt *o)
{
    char text[80];
    if (o->type == OPT_SECTIONS) {
        snprintf(text, sizeof text, " A list of %" PRIu32 " to %" PRIu32 " entries%s.", o->least, o->most,
                 o->flags & OPT_REQUIRED ? ", required" : "");
        put(out, text);
    }
    put(out, "\n");
}

static void put_table(slu_buf *out)
{
    put(out, "\n| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n");
}

char *slu_options_markdown(void)
{
    slu_buf out = SLU_BUF_INIT;
    size_t n;
    const slu_opt *o = slu_opts(&n);
    put(&out, introduction);
    put_table(&out);
    for (size_t i = 0; i < n; i++)
        if (o[i].parent < 0 && o[i].type >= OPT_NAME)
            put_row(&out, &o[i], o[i].path);
    for (size_t i = 0; i < n; i++) {
        if (o[i].parent >= 0 || o[i].type >= OPT_NAME)
            continue;
        put(&out, "\n## ");
        put(&out, o[i].key);
        put(&out, "\n");
        put(&out, o[i].help);
        put_entries(&out, &o[i]);
        put_table(&out);
        put_rows(&out, (int)i);
        if (!strcmp(o[i].key, "kafka"))
            put(&out, secrets);
    }
    slu_put_u8(&out, 0);
    return (char *)out.data;
}
