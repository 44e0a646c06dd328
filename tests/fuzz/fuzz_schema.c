/* The schema text that a store or a base brings, against our own. It is equal or refused; the message names
 * both fingerprints and where the texts part, and stays text whatever the bytes are. */
#include "base/text.h"
#include "feature/schema.h"
#include "tests/feature_sample.h"
#include "tests/fuzz/require.h"
#include <inttypes.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static slu_schema *schema;
    char ours[40];
    slu_error err = SLU_ERROR_INIT;
    if (!schema)
        REQUIRE(!slu_schema_new(&sample_options, &schema, &err));
    char *text = malloc(n + 1);
    memcpy(text, data, n);
    text[n] = 0;
    int rc = slu_schema_compare(schema, text, "store /var/lib/x", &err);
    REQUIRE(rc == err.code && (rc == 0) == !strcmp(text, slu_schema_text(schema)));
    if (rc) {
        snprintf(ours, sizeof ours, "%016" PRIx64, slu_schema_fingerprint(schema));
        REQUIRE(rc == SLU_ESCHEMA && strstr(err.message, ours) && strstr(err.message, "store /var/lib/x"));
        REQUIRE(slu_text_is_line(err.message));
    }
    free(text);
    return 0;
}
