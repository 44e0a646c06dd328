/* Delta messages written by hand in the wire format, read back with the generated protobuf code. */
#include "base/rng.h"
#include "sluice/v1/delta.pb-c.h"
#include "trainer/delta.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES 4096
static const uint32_t served[] = {3, 1, 17};

typedef struct collected {
    Sluice__V1__ModelDelta *m[4096];
    size_t n, longest;
} collected;

static void collect(void *ctx, const void *message, size_t len)
{
    collected *c = ctx;
    ck_assert_uint_lt(c->n, 4096);
    c->m[c->n] = sluice__v1__model_delta__unpack(NULL, len, message);
    ck_assert_msg(c->m[c->n] != NULL, "chunk %zu does not parse", c->n);
    c->n++;
    if (len > c->longest)
        c->longest = len;
}

static void drop(collected *c)
{
    for (size_t i = 0; i < c->n; i++)
        sluice__v1__model_delta__free_unpacked(c->m[i], NULL);
    *c = (collected){.n = 0};
}

static collected got;

START_TEST(test_empty)
{
    slu_delta_builder *b = slu_delta_builder_new(served, 3, CHUNK_BYTES);
    slu_delta_begin(b, &(slu_delta_head){.lineage = 0x1122334455667788ULL,
                                         .version = 8,
                                         .previous_version = 7,
                                         .schema_fingerprint = 0xfedcba9876543210ULL,
                                         .schema_text = "not sent with a delta",
                                         .learned_through_us = -5,
                                         .committed_us = 1700000000000000});
    ck_assert(slu_delta_empty(b));
    slu_delta_finish(b, collect, &got);
    ck_assert_uint_eq(got.n, 1);
    const Sluice__V1__ModelDelta *m = got.m[0];
    ck_assert_uint_eq(m->lineage, 0x1122334455667788ULL);
    ck_assert_uint_eq(m->version, 8);
    ck_assert_uint_eq(m->previous_version, 7);
    ck_assert_int_eq(m->kind, SLUICE__V1__DELTA_KIND__DELTA_KIND_DELTA);
    ck_assert_uint_eq(m->chunk, 0);
    ck_assert_uint_eq(m->chunks, 1);
    ck_assert_uint_eq(m->schema_fingerprint, 0xfedcba9876543210ULL);
    ck_assert_str_eq(m->schema_text, "");
    ck_assert_int_eq(m->learned_through_us, -5);
    ck_assert_int_eq(m->committed_us, 1700000000000000);
    ck_assert_uint_eq(m->n_rows, 0);
    ck_assert_ptr_null(m->dense);
    ck_assert_uint_eq(m->row_sum.len + m->dense_digest.len, 0);
    drop(&got);
    slu_delta_builder_free(b);
}
END_TEST

/* Row |i| of |table|: its floats are a function of both. */
static float value_of(uint32_t table, uint64_t id, uint32_t k)
{
    return (float)(slu_mix64(id * 31 + table * 7 + k) >> 40);
}

static void add_rows(slu_delta_builder *b, uint32_t table, uint64_t n)
{
    float v[32];
    for (uint64_t id = 1; id <= n; id++) {
        for (uint32_t k = 0; k < served[table]; k++)
            v[k] = value_of(table, id, k);
        slu_delta_row(b, table, id, v);
    }
}

/* Checks the rows of all chunks: the ids of each table count up from 1. */
static void check_rows(const uint64_t *expected)
{
    uint64_t seen[3] = {0};
    for (size_t c = 0; c < got.n; c++)
        for (size_t i = 0; i < got.m[c]->n_rows; i++) {
            const Sluice__V1__RowBlock *r = got.m[c]->rows[i];
            ck_assert_uint_lt(r->table, 3);
            size_t n = r->ids.len / 8, floats = served[r->table];
            ck_assert_uint_eq(r->ids.len, 8 * n);
            ck_assert_uint_eq(r->values.len, 4 * n * floats);
            for (size_t j = 0; j < n; j++) {
                uint64_t id;
                memcpy(&id, r->ids.data + 8 * j, 8);
                ck_assert_uint_eq(id, ++seen[r->table]);
                for (uint32_t k = 0; k < floats; k++) {
                    float v;
                    memcpy(&v, r->values.data + 4 * (j * floats + k), 4);
                    ck_assert(v == value_of(r->table, id, k));
                }
            }
        }
    for (uint32_t t = 0; t < 3; t++)
        ck_assert_uint_eq(seen[t], expected[t]);
}

START_TEST(test_chunks)
{
    slu_delta_builder *b = slu_delta_builder_new(served, 3, CHUNK_BYTES);
    float *dense = malloc(5000 * sizeof *dense);
    for (uint32_t i = 0; i < 5000; i++)
        dense[i] = value_of(9, i, 0);
    char text[3001];
    memset(text, 's', 3000);
    text[3000] = 0;
    for (int round = 0; round < 2; round++) { /* a builder is used again */
        slu_delta_begin(
            b, &(slu_delta_head){.version = 9, .base = true, .previous_version = 8, .schema_text = text});
        add_rows(b, 0, 1000);
        add_rows(b, 1, 3);
        add_rows(b, 2, 500);
        slu_delta_dense(b, dense, 5000);
        slu_delta_sums(b, (slu_row_sum){.lo = 7, .hi = 9}, slu_hash_128(dense, 20000, 0));
        ck_assert(!slu_delta_empty(b));
        slu_delta_finish(b, collect, &got);
        ck_assert_uint_gt(got.n, 10);
        ck_assert_uint_le(got.longest, CHUNK_BYTES);
        uint32_t next = 0;
        for (size_t i = 0; i < got.n; i++) {
            const Sluice__V1__ModelDelta *m = got.m[i];
            ck_assert_uint_eq(m->chunk, i);
            ck_assert_uint_eq(m->chunks, got.n);
            ck_assert_uint_eq(m->version, 9);
            ck_assert_uint_eq(m->previous_version, 0);
            ck_assert_int_eq(m->kind, SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE);
            ck_assert_uint_eq(strlen(m->schema_text), i == 0 ? 3000 : 0);
            bool last = i + 1 == got.n;
            ck_assert_uint_eq(m->row_sum.len, last ? SLU_SUM_BYTES : 0);
            ck_assert_uint_eq(m->dense_digest.len, last ? SLU_SUM_BYTES : 0);
            if (last) {
                ck_assert_uint_eq(slu_sum_read(m->row_sum.data).lo, 7);
                ck_assert_uint_eq(slu_sum_read(m->row_sum.data).hi, 9);
                slu_hash128 h = slu_sum_read(m->dense_digest.data), whole = slu_hash_128(dense, 20000, 0);
                ck_assert(h.lo == whole.lo && h.hi == whole.hi);
            }
            if (!m->dense)
                continue;
            ck_assert_uint_eq(m->dense->total, 5000);
            ck_assert_uint_eq(m->dense->offset, next);
            ck_assert_int_eq(memcmp(m->dense->values.data, dense + next, m->dense->values.len), 0);
            next += (uint32_t)m->dense->values.len / 4;
        }
        ck_assert_uint_eq(next, 5000);
        check_rows((uint64_t[]){1000, 3, 500});
        drop(&got);
    }
    free(dense);
    slu_delta_builder_free(b);
}
END_TEST

START_TEST(test_tombstones)
{
    slu_delta_builder *b = slu_delta_builder_new(served, 3, CHUNK_BYTES);
    slu_delta_begin(b, &(slu_delta_head){.version = 2, .previous_version = 1});
    add_rows(b, 1, 2);
    slu_delta_tombstone(b, 1, 77);
    slu_delta_tombstone(b, 2, 78);
    ck_assert(!slu_delta_empty(b));
    slu_delta_finish(b, collect, &got);
    ck_assert_uint_eq(got.n, 1);
    ck_assert_uint_eq(got.m[0]->n_rows, 2);
    uint64_t id;
    ck_assert_uint_eq(got.m[0]->rows[0]->table, 1);
    ck_assert_uint_eq(got.m[0]->rows[0]->ids.len, 16);
    ck_assert_uint_eq(got.m[0]->rows[0]->deleted.len, 8);
    memcpy(&id, got.m[0]->rows[0]->deleted.data, 8);
    ck_assert_uint_eq(id, 77);
    ck_assert_uint_eq(got.m[0]->rows[1]->table, 2);
    memcpy(&id, got.m[0]->rows[1]->deleted.data, 8);
    ck_assert_uint_eq(id, 78);
    drop(&got);
    slu_delta_builder_free(b);
}
END_TEST

/* A chunk that is smaller than what must go into it holds one thing at a time instead of failing. */
START_TEST(test_tiny_chunks)
{
    slu_delta_builder *b = slu_delta_builder_new(served, 3, 16);
    slu_delta_begin(b, &(slu_delta_head){.version = 3, .previous_version = 2});
    add_rows(b, 2, 20);
    slu_delta_dense(b, (float[]){1, 2, 3}, 3);
    slu_delta_finish(b, collect, &got);
    ck_assert_uint_ge(got.n, 20);
    check_rows((uint64_t[]){0, 0, 20});
    drop(&got);
    slu_delta_builder_free(b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("delta");
    TCase *t = tcase_create("delta");
    tcase_add_test(t, test_empty);
    tcase_add_test(t, test_chunks);
    tcase_add_test(t, test_tombstones);
    tcase_add_test(t, test_tiny_chunks);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
