#include "base/digest.h"
#include "base/options_parts.h"
#include "base/text.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- in the tree: defaults that depend on other keys ---- */

static int out_of_memory(const slu_tree *t, slu_error *err)
{
    return slu_fail(err, SLU_ENOMEM, "%.200s: out of memory for the configuration", t->name);
}

static int fill(slu_tree *t, slu_node *map, const char *key, const char *text, slu_error *err)
{
    slu_node *old = slu_node_get(map, key), *n = slu_node_new(t, NODE_SCALAR, map->line, map->set);
    if (!n || !(n->text = slu_arena_strndup(t->arena, text, strlen(text))))
        return out_of_memory(t, err);
    n->filled = true;
    slu_node_put(t, map, key, old, n);
    return 0;
}

static bool written(const slu_node *n)
{
    return !slu_node_is_null(n) && !n->filled;
}

static int choice_of(const slu_node *map, const char *key)
{
    return atoi(slu_node_get(map, key)->text); /* checked and in plain form */
}

/* Refuses keys that mean nothing for this kind of feature, so that nobody waits for their effect. */
static int derive_fit(slu_tree *t, slu_node *f, const char *path, slu_error *err)
{
    size_t n;
    const slu_opt *o = slu_opts(&n);
    int features = slu_opt_find(-1, "features", strlen("features"));
    slu_feature_kind kind = (slu_feature_kind)choice_of(f, "kind");
    slu_transform transform = (slu_transform)choice_of(f, "transform");
    for (size_t i = 0; i < n; i++) {
        const slu_node *value = o[i].parent == features ? slu_node_get(f, o[i].key) : NULL;
        const char *needs = value && written(value) ? slu_opt_unfit(&o[i], kind, transform) : NULL;
        char where[80];
        if (!needs)
            continue;
        snprintf(where, sizeof where, "%s.%s", path, o[i].key);
        return slu_tree_fail(t, value, where, err, "has no meaning for this feature, it needs %s; remove it",
                             needs);
    }
    return 0;
}

static int derive_feature(slu_tree *t, slu_node *f, const char *path, slu_error *err)
{
    slu_feature_kind kind = (slu_feature_kind)choice_of(f, "kind");
    bool number = kind == SLU_NUMERIC && choice_of(f, "transform") != SLU_TRANSFORM_BUCKET;
    const char *name = slu_node_get(f, "name")->text;
    char seed[32];
    int rc = derive_fit(t, f, path, err);
    if (rc)
        return rc;
    if (kind != SLU_CROSS && slu_node_is_null(slu_node_get(f, "side"))) {
        char where[80];
        snprintf(where, sizeof where, "%s.side", path);
        return slu_tree_fail(t, f, where, err, "is missing; allowed: user, item, context");
    }
    if (kind != SLU_CROSS && slu_node_is_null(slu_node_get(f, "source")))
        rc = fill(t, f, "source", name, err);
    if (!rc && (kind == SLU_CATEGORICAL || kind == SLU_NUMERIC))
        rc = fill(t, f, "max_ids", "1", err);
    if (number) {
        if (!rc)
            rc = fill(t, f, "dimension", "0", err);
        return rc ? rc : fill(t, f, "wide", "false", err);
    }
    if (!rc && slu_node_is_null(slu_node_get(f, "table")))
        rc = fill(t, f, "table", name, err);
    if (!rc && slu_node_is_null(slu_node_get(f, "seed"))) {
        const char *table = slu_node_get(f, "table")->text;
        snprintf(seed, sizeof seed, "%" PRIu64, slu_hash64(table, strlen(table), 0));
        rc = fill(t, f, "seed", seed, err);
    }
    return rc;
}

int slu_options_derive(slu_tree *t, slu_error *err)
{
    unsigned i = 0;
    int rc = 0;
    for (slu_node *f = slu_node_get(t->root, "features")->first; f && !rc; f = f->next, i++) {
        char path[32];
        snprintf(path, sizeof path, "features[%u]", i);
        rc = derive_feature(t, f, path, err);
    }
    return rc;
}

/* ---- in the structure: what must hold between values ---- */

typedef struct rules {
    const slu_tree *tree;
    slu_options *o;
    slu_error *err;
} rules;

/* The node of |path|, or the deepest one on the way to it, for its line. */
static const slu_node *locate(const slu_tree *t, const char *path)
{
    const slu_node *n = t->root;
    char key[64];
    while (*path) {
        const slu_node *next;
        if (*path == '[') {
            char *end;
            next = slu_node_at(n, (unsigned)strtoul(path + 1, &end, 10));
            path = end + 1;
        } else {
            size_t len = strcspn(path, ".[");
            snprintf(key, sizeof key, "%.*s", (int)len, path);
            next = slu_node_get(n, key);
            path += len;
        }
        path += *path == '.';
        if (slu_node_is_null(next))
            break;
        n = next;
    }
    return n;
}

/* |path| is printf'ed first, then the message. */
__attribute__((format(printf, 3, 4))) static int fail(const rules *r, const char *path, const char *fmt, ...)
{
    char what[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return slu_tree_fail(r->tree, locate(r->tree, path), path, r->err, "%s", what);
}

typedef struct place {
    char text[80];
} place;

/* "features[3].of[1]": key NULL for the entry itself, index below 0 for no second one. */
static place at(const char *list, uint32_t i, const char *key, int64_t j)
{
    place p;
    size_t n = (size_t)snprintf(p.text, sizeof p.text, "%s[%" PRIu32 "]%s%s", list, i, key ? "." : "",
                                key ? key : "");
    if (j >= 0 && n < sizeof p.text)
        snprintf(p.text + n, sizeof p.text - n, "[%" PRId64 "]", j);
    return p;
}

static int check_funnel(const rules *r)
{
    const slu_options *o = r->o;
    double weights = 0;
    for (uint32_t i = 0; i < o->n_steps; i++) {
        const slu_step_opts *s = &o->steps[i];
        if (!strcmp(s->name, "impression"))
            return fail(r, at("funnel.steps", i, "name", -1).text,
                        "'impression' is what comes before the first step; call the step something else");
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(o->steps[j].name, s->name))
                return fail(r, at("funnel.steps", i, "name", -1).text,
                            "'%s' is here twice (also funnel.steps[%u])", s->name, j);
        if (i && s->window_us < o->steps[i - 1].window_us)
            return fail(
                r, at("funnel.steps", i, "window", -1).text,
                "is shorter than that of '%s' before it, so '%s' could close first; make it at least as long",
                o->steps[i - 1].name, s->name);
        weights += s->weight;
    }
    return weights > 0 ? 0
                       : fail(r, "funnel.steps",
                              "all weights are 0, so nothing would be learned; give one step a weight");
}

static int find_feature(const slu_options *o, const char *name)
{
    for (uint32_t i = 0; i < o->n_features; i++)
        if (!strcmp(o->features[i].name, name))
            return (int)i;
    return -1;
}

static bool is_number(const slu_feature_opts *f)
{
    return f->kind == SLU_NUMERIC && f->transform != SLU_TRANSFORM_BUCKET;
}

static int check_part(const rules *r, uint32_t i, uint32_t j)
{
    const slu_options *o = r->o;
    const char *names[SLU_MAX_FEATURES + 1], *part = o->features[i].of[j];
    place where = at("features", i, "of", j);
    int found = find_feature(o, part);
    if (found < 0) {
        uint32_t n = 0;
        for (uint32_t k = 0; k < o->n_features && n < SLU_MAX_FEATURES; k++)
            if (o->features[k].kind != SLU_CROSS && !is_number(&o->features[k]))
                names[n++] = o->features[k].name;
        names[n] = NULL;
        const char *near = slu_text_nearest(part, names);
        return fail(r, where.text, "there is no feature '%s'%s%s%s", part, near ? "; did you mean '" : "",
                    near ? near : "", near ? "'?" : "");
    }
    if (o->features[found].kind == SLU_CROSS)
        return fail(r, where.text, "'%s' is a cross itself; name the features it is made of", part);
    if (is_number(&o->features[found]))
        return fail(r, where.text, "'%s' is a number; give it transform: bucket, or leave it out", part);
    for (uint32_t k = 0; k < j; k++)
        if (!strcmp(o->features[i].of[k], part))
            return fail(r, where.text, "'%s' is in this cross twice", part);
    return 0;
}

/* A cross is as much the item's as its most varying part. */
static slu_side side_of_cross(const slu_options *o, const slu_feature_opts *f)
{
    slu_side side = SLU_CONTEXT;
    for (uint32_t j = 0; j < f->n_of; j++) {
        slu_side part = o->features[find_feature(o, f->of[j])].side;
        if (part == SLU_ITEM || (part == SLU_USER && side == SLU_CONTEXT))
            side = part;
    }
    return side;
}

static int check_cross(const rules *r, uint32_t i)
{
    slu_feature_opts *f = &r->o->features[i];
    int rc = 0;
    if (f->n_of < 2)
        return fail(r, at("features", i, "of", -1).text,
                    "a cross needs the names of 2 to 8 features, e.g. of: [country, device]");
    for (uint32_t j = 0; j < f->n_of && !rc; j++)
        rc = check_part(r, i, j);
    if (!rc)
        f->side = side_of_cross(r->o, f);
    return rc;
}

static int check_number(const rules *r, uint32_t i)
{
    const slu_feature_opts *f = &r->o->features[i];
    if (f->transform == SLU_TRANSFORM_BUCKET && !f->n_buckets)
        return fail(r, at("features", i, "buckets", -1).text,
                    "is missing; give ascending upper bounds, e.g. [1, 10, 100]");
    for (uint32_t j = 1; j < f->n_buckets; j++)
        if (!(f->buckets[j] > f->buckets[j - 1]))
            return fail(r, at("features", i, "buckets", j).text, "bounds must ascend, but %g comes after %g",
                        f->buckets[j], f->buckets[j - 1]);
    if (f->missing) {
        char *end;
        strtod(f->missing, &end);
        if (*end || strspn(f->missing, "0123456789+-.eE") != strlen(f->missing))
            return fail(r, at("features", i, "missing", -1).text, "expected a number, got '%s'", f->missing);
    }
    return 0;
}

/* Rows of one table have one shape and one meaning. */
static int check_table(const rules *r, uint32_t i)
{
    const slu_feature_opts *f = &r->o->features[i];
    for (uint32_t j = 0; j < i; j++) {
        const slu_feature_opts *other = &r->o->features[j];
        if (!other->table || strcmp(other->table, f->table))
            continue;
        if (other->dimension != f->dimension)
            return fail(
                r, at("features", i, "dimension", -1).text,
                "is %u, but '%s' shares table '%s' with dimension %u; make them equal or use another table",
                f->dimension, other->name, f->table, other->dimension);
        if (other->seed != f->seed)
            return fail(r, at("features", i, "seed", -1).text,
                        "differs from that of '%s', which shares table '%s': equal values would not meet; "
                        "make them equal",
                        other->name, f->table);
        break; /* the earlier ones agree with each other */
    }
    return 0;
}

static int check_feature(const rules *r, uint32_t i)
{
    const slu_options *o = r->o;
    const slu_feature_opts *f = &o->features[i];
    int first = find_feature(o, f->name), rc = 0;
    if (first != (int)i)
        return fail(r, at("features", i, "name", -1).text, "'%s' is here twice (also features[%d])", f->name,
                    first);
    if (f->kind == SLU_CROSS)
        rc = check_cross(r, i);
    if (!rc && f->kind == SLU_NUMERIC)
        rc = check_number(r, i);
    if (rc || is_number(f))
        return rc;
    if (!f->dimension && !f->wide)
        return fail(r, at("features", i, "dimension", -1).text,
                    "is 0 and wide is false, so '%s' would have no effect; change one", f->name);
    if (!f->dimension && !o->model.wide)
        return fail(r, at("features", i, "dimension", -1).text,
                    "is 0, so '%s' would have no effect without model.wide: true; set that, or a dimension",
                    f->name);
    return check_table(r, i);
}

static int check_features(const rules *r)
{
    const slu_options *o = r->o;
    uint64_t ids = 0;
    bool input = false;
    for (uint32_t i = 0; i < o->n_features; i++) {
        const slu_feature_opts *f = &o->features[i];
        int rc = check_feature(r, i);
        if (rc)
            return rc;
        ids += is_number(f) ? 0 : f->max_ids;
        input = input || is_number(f) || f->dimension;
    }
    if (!input)
        return fail(r, "features", "none is an input of the network; give at least one a dimension above 0");
    if (ids > UINT16_MAX) /* the encoded record counts ids in 16 bits */
        return fail(r, "features",
                    "together they may have %" PRIu64 " ids per event; allowed: up to %d; lower max_ids", ids,
                    UINT16_MAX);
    return 0;
}

static int check_model(const rules *r)
{
    const slu_model_opts *m = &r->o->model;
    if (!strcmp(m->architecture, "shared_bottom") && !m->n_bottom)
        return fail(r, "model.bottom", "is empty, but shared_bottom needs layers to share, e.g. [128]");
    if (!strcmp(m->architecture, "mmoe") && !m->n_expert_layers)
        return fail(r, "model.expert_layers", "is empty, but mmoe needs layers in its experts, e.g. [128]");
    return 0;
}

static int check_kafka(const rules *r)
{
    const slu_kafka_opts *k = &r->o->kafka;
    for (uint32_t i = 0; i < k->n_topics; i++) {
        char where[32];
        snprintf(where, sizeof where, "kafka.topics[%u]", i);
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(k->topics[i], k->topics[j]))
                return fail(r, where, "'%s' is here twice", k->topics[i]);
        if (!strcmp(k->topics[i], k->delta_topic))
            return fail(r, "kafka.delta_topic", "'%s' is also an event topic; deltas need one of their own",
                        k->delta_topic);
        if (k->dead_letter_topic && !strcmp(k->topics[i], k->dead_letter_topic))
            return fail(r, "kafka.dead_letter_topic",
                        "'%s' is also an event topic: dead letters would come back", k->dead_letter_topic);
    }
    if (k->dead_letter_topic && !strcmp(k->dead_letter_topic, k->delta_topic))
        return fail(r, "kafka.dead_letter_topic", "'%s' is also the delta topic; use another one",
                    k->dead_letter_topic);
    return 0;
}

static bool is_step(const slu_options *o, const char *name)
{
    for (uint32_t i = 0; i < o->n_steps; i++)
        if (!strcmp(o->steps[i].name, name))
            return true;
    return false;
}

static bool skips(const slu_file_opts *f, const char *kind)
{
    for (uint32_t i = 0; i < f->n_skip; i++)
        if (!strcmp(f->skip[i], kind))
            return true;
    return false;
}

/* JSON lines say themselves what they hold. */
static int check_jsonl(const rules *r, uint32_t i)
{
    static const char *const keys[] = {
        "time_unit", "event", "id_column", "time_column", "kind_column", "impression_column", "skip"};
    const slu_node *f = slu_node_at(slu_node_get(r->tree->root, "files"), i);
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        if (written(slu_node_get(f, keys[k])))
            return fail(r, at("files", i, keys[k], -1).text, "has no meaning for format jsonl; remove it");
    return 0;
}

static int check_csv(const rules *r, uint32_t i)
{
    const slu_options *o = r->o;
    const slu_file_opts *f = &o->files[i];
    if (!f->time_column)
        return fail(r, at("files", i, "time_column", -1).text,
                    "is missing; name the column with the event's time");
    if (!f->event == !f->kind_column)
        return fail(r, at("files", i, "event", -1).text,
                    "give either event (a file of one kind) or kind_column (a column says it), %s",
                    f->event ? "not both" : "one is needed");
    if (f->event && strcmp(f->event, "impression") && !is_step(o, f->event))
        return fail(r, at("files", i, "event", -1).text,
                    "'%s' is neither 'impression' nor a step of the funnel", f->event);
    if (f->n_skip && !f->kind_column)
        return fail(r, at("files", i, "skip", -1).text, "has no meaning without kind_column; remove it");
    bool impressions = f->event ? !strcmp(f->event, "impression") : !skips(f, "impression");
    bool steps = f->event ? !impressions : false;
    for (uint32_t s = 0; f->kind_column && s < o->n_steps; s++)
        steps = steps || !skips(f, o->steps[s].name);
    if (impressions && !f->id_column)
        return fail(r, at("files", i, "id_column", -1).text, "is missing; impressions need an id");
    if (steps && !f->impression_column)
        return fail(r, at("files", i, "impression_column", -1).text,
                    "is missing; name the column with the id of the impression that a step answers");
    return 0;
}

static int check_files(const rules *r)
{
    int rc = 0;
    for (uint32_t i = 0; i < r->o->n_files && !rc; i++)
        rc = r->o->files[i].format == SLU_FILE_JSONL ? check_jsonl(r, i) : check_csv(r, i);
    return rc;
}

static int check_stores(const rules *r)
{
    if (!strcmp(r->o->store.path, r->o->serving.store_path))
        return fail(r, "serving.store", "is the trainer's store.path; the scorer needs a folder of its own");
    return 0;
}

static int check_tls(const rules *r)
{
    const slu_serving_opts *s = &r->o->serving;
    const char *const keys[] = {"serving.tls.certificate", "serving.tls.key", "serving.tls.client_ca"};
    const char *const files[] = {s->tls_certificate, s->tls_key, s->tls_client_ca};
    for (int i = 0; i < 3; i++)
        if (files[i] && strstr(files[i], "-----BEGIN")) /* may be the private key, so it is not repeated */
            return fail(r, keys[i], "is the name of a file, not its contents");
    if (!s->tls_certificate && (s->tls_key || s->tls_client_ca))
        return fail(r, keys[0], "is missing; %s has no meaning without it", s->tls_key ? keys[1] : keys[2]);
    if (s->tls_certificate && !s->tls_key)
        return fail(r, keys[1], "is missing; a certificate is of no use without its private key");
    return 0;
}

/* A name other than localhost may mean any address. */
static bool is_loopback(const char *listen)
{
    size_t host = (size_t)(strrchr(listen, ':') - listen);
    return (!strncmp(listen, "127.", 4) && strspn(listen, "0123456789.") == host) ||
           !strncmp(listen, "[::1]:", 6) || !strncmp(listen, "localhost:", 10);
}

static int check_admin(const rules *r)
{
    const slu_options *o = r->o;
    const char *const keys[] = {"admin.trainer", "admin.scorer"}, *const at[] = {o->trainer_admin,
                                                                                 o->scorer_admin};
    for (int i = 0; i < 2 && !o->admin_allow_remote; i++)
        if (at[i] && !is_loopback(at[i]))
            return fail(
                r, keys[i],
                "'%.60s' can be reached from other machines, and the page has no password; use 127.0.0.1, "
                "or set admin.allow_remote: true",
                at[i]);
    return 0;
}

static const slu_node *node_at(const rules *r, const char *section, const char *key)
{
    return slu_node_get(slu_node_get(r->tree->root, section), key);
}

static int check_memory(const rules *r)
{
    slu_options *o = r->o;
    uint64_t limit = o->training.memory_bytes, given[SLU_MEM_PARTS] = {0};
    bool keep = !limit; /* defaults count as if they were written */
    if (keep || written(node_at(r, "store", "cache")))
        given[SLU_MEM_ROWS] = o->store.cache_bytes;
    if (keep || written(node_at(r, "join", "cache")))
        given[SLU_MEM_JOIN] = o->join.cache_bytes;
    if (keep || written(node_at(r, "store", "block_cache")))
        given[SLU_MEM_BLOCKS] = o->store.block_cache_bytes;
    slu_error why = SLU_ERROR_INIT;
    /* A response holds a whole message, and two of them are under way. */
    if (slu_memory_divide(limit, given, 4 * (uint64_t)o->kafka.max_message_bytes, &o->memory, &why))
        return fail(r, "training.memory", "%s", why.message);
    o->store.cache_bytes = o->memory.bytes[SLU_MEM_ROWS];
    o->join.cache_bytes = o->memory.bytes[SLU_MEM_JOIN];
    o->store.block_cache_bytes = o->memory.bytes[SLU_MEM_BLOCKS];
    return 0;
}

int slu_options_rules(const slu_tree *t, slu_options *o, slu_error *err)
{
    static int (*const checks[])(const rules *) = {check_funnel, check_features, check_model, check_kafka,
                                                   check_files,  check_stores,   check_admin, check_tls,
                                                   check_memory};
    rules r = {.tree = t, .o = o, .err = err};
    int rc = 0;
    for (size_t i = 0; i < sizeof checks / sizeof *checks && !rc; i++)
        rc = checks[i](&r);
    return rc;
}
