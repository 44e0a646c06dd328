/* Any bytes as a configuration. What follows the first NUL byte is taken as --set assignments, one per line.
 * A bad one must give a message, a good one must survive being dumped and read again. */
#include "base/options.h"
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
    }
    slu_options_free(o);
    free(own);
    free(text);
    return 0;
}
