#include "tests/numeric.h"
#include "tests/pipeline_sample.h"
#include "trainer/sharing.h"
#include <string.h>

enum { SLOTS = 64, BATCH = 64, REFS = 8 };

/* Rows are equal where the counts and refs of the shared slots are, whatever stands before and behind. */
START_TEST(test_against_all_pairs)
{
    slu_options *options = sample_options(NULL, 0);
    slu_schema *schema = sample_schema(options);
    slu_sharing s;
    ck_assert_int_eq(slu_sharing_init(&s, schema, BATCH), 0);
    ck_assert_uint_gt(s.end, s.slot);
    ck_assert_uint_eq(s.column, slu_schema_slot(schema, s.slot)->input);
    slu_rng r;
    slu_rng_seed(&r, 77 + (uint64_t)_i);
    uint16_t counts[BATCH][SLOTS] = {0};
    uint32_t refs[BATCH][REFS * SLOTS];
    for (int round = 0; round < 50; round++) {
        uint32_t B = 1 + (uint32_t)slu_rng_below(&r, BATCH), total[BATCH] = {0}, different = 0;
        slu_sharing_begin(&s, B);
        for (uint32_t b = 0; b < B; b++) {
            for (uint32_t i = s.slot; i < s.end; i++) {
                counts[b][i] = (uint16_t)(1 + slu_rng_below(&r, 2));
                for (uint16_t k = 0; k < counts[b][i]; k++)
                    refs[b][total[b]++] = (uint32_t)slu_rng_below(&r, 2);
            }
            refs[b][total[b]] = b; /* of the slots behind */
            slu_sharing_add(&s, b, counts[b], refs[b]);
            uint32_t same = 0;
            while (same < b && (total[same] != total[b] ||
                                memcmp(counts[same] + s.slot, counts[b] + s.slot, 2 * (s.end - s.slot)) ||
                                memcmp(refs[same], refs[b], total[b] * sizeof refs[0][0])))
                same++;
            different += same == b;
            ck_assert_uint_eq(s.sample[s.of[b]], same);
        }
        ck_assert_uint_eq(s.n, different);
        ck_assert_int_eq(slu_sharing_end(&s, B), 2 * different <= B);
    }
    slu_sharing_free(&s);
    slu_schema_free(schema);
    slu_options_free(options);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sharing");
    TCase *t = tcase_create("sharing");
    tcase_add_loop_test(t, test_against_all_pairs, 0, 4);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
