/* Any bytes as a configuration. What follows the first NUL byte is taken as --set assignments, one per line.
 * A bad one must give a message, a good one must survive being dumped and read again. */
#include "base/options.h"
#include "feature/encode.h"
#include "model/spec.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SETS 8
#define REQUIRE(what)                                                                                        \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s does not hold: %s\n", __FILE__, __LINE__, #what, err.message);        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static void check_round_trip(const slu_options *o)
{
    slu_options *again;
    slu_error err = SLU_ERROR_INIT;
    char *first = slu_options_dump(o);
    int rc = slu_options_parse(first, strlen(first), "dump", NULL, 0, &again, &err);
    REQUIRE(rc == 0);
    char *second = slu_options_dump(again);
    REQUIRE(!strcmp(first, second));
    REQUIRE(slu_options_fingerprint(o) == slu_options_fingerprint(again));
    slu_options_free(again);
    free(first);
    free(second);
}

/* What is accepted makes a schema that is equal to itself, and an encoder and a network description. */
static void check_schema(const slu_options *o)
{
    slu_schema *s;
    slu_net_spec spec;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_schema_new(o, &s, &err);
    REQUIRE(rc == 0);
    REQUIRE(slu_schema_compare(s, slu_schema_text(s), "itself", &err) == 0);
    REQUIRE(slu_schema_compare(s, "another", "another", &err) == SLU_ESCHEMA && err.message[0]);
    slu_error_clear(&err);
    REQUIRE(slu_encoded_max(s) > 0 && slu_schema_steps(s) == o->n_steps);
    REQUIRE(slu_net_spec_of(o, slu_schema_inputs(s), &spec, &err) == 0);
    slu_schema_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const char *sets[MAX_SETS];
    size_t n_sets = 0;
    slu_options *o;
    slu_error err = SLU_ERROR_INIT;
    char *text = malloc(n + 1);
    memcpy(text, bytes, n);
    text[n] = 0;
    size_t yaml = strlen(text);
    char *line = yaml < n ? text + yaml + 1 : NULL;
    while (line && n_sets < MAX_SETS) {
        sets[n_sets++] = strsep(&line, "\n");
    }
    /* The text as a block of its own, so that reading past its end is seen. */
    char *own = malloc(yaml ? yaml : 1);
    memcpy(own, text, yaml);
    int rc = slu_options_parse(own, yaml, "fuzz.yaml", sets, n_sets, &o, &err);
    if (rc) {
        REQUIRE(!o && err.code == rc && err.message[0]);
    } else {
        REQUIRE(o && !err.code);
        check_round_trip(o);
        check_schema(o);
    }
    slu_options_free(o);
    free(own);
    free(text);
    return 0;
}
