#include "base/log.h"
#include "model/gemm.h"
#include "model/loss.h"
#include "model/onednn.h"
#include "model/products.h"
#include "store/row_scan.h"
#include "store/state.h"
#include "tests/pipeline_sample.h"
#include "trainer/learner.h"
#include <math.h>

typedef struct bench {
    slu_options *options;
    slu_schema *schema;
    char *directory;
    slu_store *store;
    slu_learner *learner;
    slu_encoder *encoder;
    slu_encoded *x;
    slu_batch *batch;
    float seen[64]; /* logits handed out by the last step */
    int n_seen;
} bench;

static bench *set_up(const char *const *sets, size_t n)
{
    bench *b = calloc(1, sizeof *b);
    b->options = sample_options(sets, n);
    b->schema = sample_schema(b->options);
    b->directory = sample_directory();
    b->store = sample_store(b->directory, b->schema);
    OK(slu_learner_open(b->options, b->schema, b->store, &b->learner, err));
    b->encoder = slu_encoder_new(b->schema);
    b->x = malloc(slu_encoded_max(b->schema));
    b->batch = slu_batch_new(b->schema, b->options->training.batch_size);
    return b;
}

static void tear_down(bench *b)
{
    slu_learner_close(b->learner);
    slu_store_close(b->store);
    sample_remove(b->directory);
    slu_encoder_free(b->encoder);
    slu_batch_free(b->batch);
    free(b->x);
    slu_schema_free(b->schema);
    slu_options_free(b->options);
    free(b);
}

static void add_priced(bench *b, const char *user, const char *item, double price, bool arrival, uint8_t say,
                       uint8_t labels)
{
    slu_value values[4];
    slu_values fields[4];
    slu_event e = sample_impression(b->schema, "x", T0, user, item, values, fields);
    values[3].v.number = price;
    slu_encode(b->encoder, e.fields, b->x);
    slu_sample s = {
        .key = {1, 2}, .time_us = T0, .say = {say, say}, .labels = labels, .arrival = arrival, .x = b->x};
    slu_batch_add(b->batch, &s, T0);
}

static void add(bench *b, const char *user, const char *item, bool arrival, uint8_t say, uint8_t labels)
{
    add_priced(b, user, item, 9.5, arrival, say, labels);
}

static int note(void *ctx, slu_hash128 key, const float *logits, slu_error *err)
{
    bench *b = ctx;
    (void)err;
    ck_assert_uint_eq(key.lo, 1);
    memcpy(b->seen + 2 * b->n_seen++, logits, 2 * sizeof *logits);
    return 0;
}

static double step(bench *b)
{
    double loss;
    uint32_t said;
    b->n_seen = 0;
    OK(slu_learner_step(b->learner, b->batch, INT64_MIN, note, b, &loss, &said, err));
    slu_batch_clear(b->batch);
    return loss;
}

static void commit(bench *b)
{
    slu_commit *c = slu_commit_begin(b->store);
    OK(slu_learner_flush(b->learner, c, NULL, NULL));
    OK(slu_commit_write(c, err));
    slu_learner_committed(b->learner);
    slu_commit_abandon(c);
}

START_TEST(test_prediction_comes_before_learning)
{
    bench *b = set_up(NULL, 0);
    add(b, "u", "i", true, SLU_SAY_LABEL, 3);
    double first = step(b);
    ck_assert_int_eq(b->n_seen, 1);
    float before = b->seen[0];
    /* The loss of the step is that of the prediction handed out: nothing was learned in between. */
    double lp = -log1p(exp(-b->seen[0])), lpp = lp - log1p(exp(-b->seen[1]));
    ck_assert_double_eq_tol(first, -lp - lpp, 1e-5);
    add(b, "u", "i", true, SLU_SAY_LABEL, 3);
    double second = step(b);
    ck_assert_double_lt(second, first);
    ck_assert_float_gt(b->seen[0], before);
    tear_down(b);
}
END_TEST

START_TEST(test_predicting_only_teaches_nothing)
{
    bench *b = set_up(NULL, 0);
    add(b, "u", "i", true, SLU_SAY_NOTHING, 0);
    ck_assert_double_eq(step(b), 0);
    float before = b->seen[0];
    add(b, "u", "i", true, SLU_SAY_NOTHING, 0);
    step(b);
    ck_assert_float_eq(b->seen[0], before);
    /* Beside a sample that teaches, a silent one still adds nothing of its own. */
    add(b, "other", "thing", true, SLU_SAY_NOTHING, 0);
    add(b, "u", "i", true, SLU_SAY_LABEL, 1);
    step(b);
    add(b, "other", "thing", true, SLU_SAY_NOTHING, 0);
    step(b);
    ck_assert_int_eq(b->n_seen, 1);
    tear_down(b);
}
END_TEST

START_TEST(test_dense_waits_for_enough_samples)
{
    bench *b = set_up(NULL, 0); /* batch 8, dense_every 16 */
    size_t n;
    const float *now = slu_learner_dense(b->learner, &n);
    float *before = malloc(n * sizeof *before);
    memcpy(before, now, n * sizeof *before);
    for (int i = 0; i < 15; i++) {
        add(b, "u", "i", true, SLU_SAY_LABEL, (uint8_t)(i & 1));
        step(b);
    }
    ck_assert_int_eq(memcmp(before, now, n * sizeof *before), 0);
    ck_assert_uint_eq(slu_learner_dense_steps(b->learner), 0);
    add(b, "u", "i", true, SLU_SAY_LABEL, 0);
    step(b);
    ck_assert_uint_eq(slu_learner_dense_steps(b->learner), 1);
    ck_assert_int_ne(memcmp(before, now, n * sizeof *before), 0);
    free(before);
    tear_down(b);
}
END_TEST

/* A commit between two batches that share a dense step, and a reopened store: the same parameters. */
START_TEST(test_gathered_gradients_survive)
{
    float *ends[2];
    size_t n = 0;
    for (int restart = 0; restart < 2; restart++) {
        bench *b = set_up(NULL, 0);
        for (int i = 0; i < 40; i++) {
            char user[16];
            snprintf(user, sizeof user, "u%d", i % 7);
            add(b, user, i % 2 ? "a" : "b", true, SLU_SAY_FNW_NEGATIVE, 0);
            if (i % 3 == 0)
                add(b, user, i % 2 ? "a" : "b", false, SLU_SAY_FNW_POSITIVE, 1);
            step(b);
            if (restart && i % 5 == 2) {
                commit(b);
                slu_learner_close(b->learner);
                slu_store_close(b->store);
                b->store = sample_store(b->directory, b->schema);
                OK(slu_learner_open(b->options, b->schema, b->store, &b->learner, err));
            }
        }
        const float *params = slu_learner_dense(b->learner, &n);
        ends[restart] = malloc(n * sizeof(float));
        memcpy(ends[restart], params, n * sizeof(float));
        tear_down(b);
    }
    ck_assert_int_eq(memcmp(ends[0], ends[1], n * sizeof(float)), 0);
    free(ends[0]);
    free(ends[1]);
}
END_TEST

/* Predictions in int8 are near those of the training pass, and nothing that is learned changes. Half of the
 * batches share their users' columns. */
START_TEST(test_predictions_as_served)
{
    const char *sets[] = {"training.batch_size=150", "training.dense_every=150", "model.towers=[64,48]"};
    bench *fp32 = set_up(sets, 3), *int8 = set_up(sets, 3);
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_learner_predict_as_served(int8->learner, &err), 0);
    int differ = 0, seen = 0;
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < 150; k++) {
            char user[16], item[16];
            snprintf(user, sizeof user, "u%d", i % 2 ? k * 7 % 101 : k % 3);
            snprintf(item, sizeof item, "i%d", k * 13 % 57);
            for (int p = 0; p < 2; p++)
                add(p ? int8 : fp32, user, item, k % 8 == 0, SLU_SAY_LABEL, (uint8_t)(k * 5 % 7 == 0));
        }
        step(fp32);
        step(int8);
        ck_assert_int_eq(fp32->n_seen, int8->n_seen);
        for (int k = 0; k < 2 * fp32->n_seen; k++, seen++) {
            ck_assert_msg(fabsf(fp32->seen[k] - int8->seen[k]) < .05f, "batch %d: %g and %g", i,
                          (double)fp32->seen[k], (double)int8->seen[k]);
            differ += fp32->seen[k] != int8->seen[k];
        }
    }
    ck_assert_int_gt(2 * differ, seen);
    slu_hash128 a = slu_learner_dense_digest(fp32->learner), b = slu_learner_dense_digest(int8->learner);
    ck_assert_int_eq(memcmp(&a, &b, sizeof a), 0);
    tear_down(fp32);
    tear_down(int8);
}
END_TEST

/* What large products are computed with. */
static const struct {
    const char *precision;
    slu_products_kind kind;
} products[] = {{"fp32", SLU_PRODUCTS_NONE},
                {"bf16", SLU_PRODUCTS_ROUNDED},
                {"bf16", SLU_PRODUCTS_BF16},
                {"fp32", SLU_PRODUCTS_FP32}};

/* False where this machine has no such products (main() says so). */
static bool choose_products(int which)
{
    slu_products_choose(SLU_PRODUCTS_NONE);
    if (products[which].kind == SLU_PRODUCTS_BF16 && slu_products_best(true, NULL) != SLU_PRODUCTS_BF16)
        return false;
    if (products[which].kind == SLU_PRODUCTS_FP32 && !slu_onednn(NULL))
        return false;
    slu_products_choose(products[which].kind);
    return true;
}

/* Six batches that are large enough to be cut; the digest of all dense parameters, into which rows went too.
 */
static slu_hash128 learn_with_threads(const char *architecture, const char *norm, const char *precision,
                                      int threads)
{
    char sets[4][64];
    snprintf(sets[0], sizeof sets[0], "model.architecture=%s", architecture);
    snprintf(sets[1], sizeof sets[1], "model.norm=%s", norm);
    snprintf(sets[2], sizeof sets[2], "training.threads=%d", threads);
    snprintf(sets[3], sizeof sets[3], "training.precision=%s", precision);
    const char *all[] = {sets[0],
                         sets[1],
                         sets[2],
                         sets[3],
                         "training.batch_size=150",
                         "model.towers=[330,96]",
                         "model.experts=3",
                         "model.expert_layers=[272,144]"};
    bench *b = set_up(all, strcmp(architecture, "mmoe") == 0 ? 8 : 6);
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < 150; k++) {
            char user[16], item[16];
            snprintf(user, sizeof user, "u%d", i % 2 ? k * 7 % 101 : k % 3); /* odd batches share few users */
            snprintf(item, sizeof item, "i%d", k * 13 % 57);
            add(b, user, item, k < 20, SLU_SAY_LABEL, (uint8_t)(k * 5 % 7 == 0));
        }
        step(b);
    }
    slu_hash128 digest = slu_learner_dense_digest(b->learner);
    tear_down(b);
    return digest;
}

START_TEST(test_threads_do_not_matter)
{
    static const char *const networks[][2] = {
        {"esmm", "none"}, {"mmoe", "none"}, {"mmoe", "layer"}, {"mmoe", "batch"}};
    const int which = _i / 4 ? _i / 4 - 1 : 0;
    slu_gemm_choose(_i / 4 == 1 ? SLU_GEMM_OPENBLAS : SLU_GEMM_BEST);
    if (!choose_products(which))
        return;
    slu_hash128 one =
        learn_with_threads(networks[_i % 4][0], networks[_i % 4][1], products[which].precision, 1);
    for (int threads = 2; threads <= 3; threads++) {
        slu_hash128 some =
            learn_with_threads(networks[_i % 4][0], networks[_i % 4][1], products[which].precision, threads);
        ck_assert_msg(some.lo == one.lo && some.hi == one.hi,
                      "%s, norm %s, %s, products %d: another model with %d threads", networks[_i % 4][0],
                      networks[_i % 4][1], slu_gemm_backend(), which, threads);
    }
}
END_TEST

typedef struct counted {
    uint64_t rows, admitted, count;
} counted;

static bool count_rows(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen,
                       bool admitted, const float *v, uint32_t floats)
{
    counted *c = ctx;
    (void)table, (void)id, (void)v, (void)floats;
    ck_assert_uint_eq(last_seen, T0 / SECOND);
    c->rows++;
    c->admitted += admitted;
    c->count += count;
    return true;
}

START_TEST(test_admission_counts_impressions_not_samples)
{
    const char *sets[] = {"features.user.admit_after=3", "features.item.admit_after=3",
                          "features.tags.admit_after=3", "features.user_x_item.admit_after=3"};
    bench *b = set_up(sets, 4);
    float unseen[2], logits[2];
    for (int i = 0; i < 3; i++) {
        add(b, "u", "i", true, SLU_SAY_FNW_NEGATIVE, 0);
        add(b, "u", "i", false, SLU_SAY_FNW_POSITIVE, 1); /* the same impression again: not counted */
        step(b);
        memcpy(i ? logits : unseen, b->seen, sizeof logits);
        if (i == 1)
            ck_assert_int_eq(memcmp(unseen, logits, sizeof logits),
                             0); /* no row yet: nothing could be learned */
    }
    ck_assert_int_ne(memcmp(unseen, logits, sizeof logits), 0);
    commit(b);
    counted c = {0};
    OK(slu_row_scan(b->store, count_rows, &c, err));
    ck_assert_uint_eq(c.rows, 4);
    ck_assert_uint_eq(c.admitted, 4);
    ck_assert_uint_eq(c.count, 12);
    tear_down(b);
}
END_TEST

START_TEST(test_every_architecture_and_norm_learns)
{
    const char *architectures[] = {"shared_bottom", "esmm", "mmoe"}, *norms[] = {"none", "batch", "layer"};
    for (int a = 0; a < 3; a++)
        for (int m = 0; m < 3; m++) {
            char architecture[64], norm[64];
            snprintf(architecture, sizeof architecture, "model.architecture=%s", architectures[a]);
            snprintf(norm, sizeof norm, "model.norm=%s", norms[m]);
            const char *sets[] = {architecture,
                                  norm,
                                  "model.experts=3",
                                  "model.expert_layers=[8]",
                                  "model.bottom=[8]",
                                  "training.dense_every=8",
                                  "optimizer.dense.rate=0.01"};
            bench *b = set_up(sets, 7);
            double first = 0, last = 0;
            for (int i = 0; i < 200; i++) {
                for (int k = 0; k < 8; k++)
                    add(b, k & 1 ? "u" : "v", k & 2 ? "i" : "j", true, SLU_SAY_LABEL,
                        k & 1 ? k & 2 ? 3 : 1 : 0);
                last = step(b);
                if (!i)
                    first = last;
            }
            ck_assert_msg(last < 0.1 * first, "%s %s: loss went from %g to %g", architectures[a], norms[m],
                          first, last);
            tear_down(b);
        }
}
END_TEST

static void expect_finite_row(void *ctx, uint32_t table, const slu_row *row)
{
    const bench *b = ctx;
    for (uint32_t i = 0; row->admitted && i < slu_learner_layout(b->learner, table)->floats; i++)
        ck_assert_msg(isfinite(row->v[i]), "table %u row %llu float %u is %g", table,
                      (unsigned long long)row->id, i, (double)row->v[i]);
}

/* Absurd values of a feature may cost a batch, never the model: what is not finite is refused by every scorer
 * and never goes away. */
START_TEST(test_absurd_values_do_not_poison)
{
    const char *architectures[] = {"shared_bottom", "esmm", "mmoe"}, *norms[] = {"none", "batch", "layer"};
    const double prices[] = {0, 1e300, -1e300, 1e12, -1e9, 1e-300, 3e38, 7};
    /* After all of them as ever, mmoe once more for each way to compute products. */
    const int which = _i < 9 ? 0 : _i / 3 - 2;
    const char *architecture = architectures[which ? 2 : _i / 3], *norm = norms[_i % 3];
    char set_architecture[64], set_norm[64], set_precision[64];
    if (!choose_products(which))
        return;
    snprintf(set_precision, sizeof set_precision, "training.precision=%s", products[which].precision);
    snprintf(set_architecture, sizeof set_architecture, "model.architecture=%s", architecture);
    snprintf(set_norm, sizeof set_norm, "model.norm=%s", norm);
    const char *sets[] = {set_architecture,
                          set_norm,
                          set_precision,
                          "model.experts=3",
                          which ? "model.expert_layers=[40]" : "model.expert_layers=[8]",
                          "model.bottom=[8]",
                          "training.dense_every=8",
                          "optimizer.dense.clip=0",
                          "optimizer.dense.rate=0.1",
                          "features.price.transform=none"};
    bench *b = set_up(sets, sizeof sets / sizeof *sets);
    slu_rng r;
    slu_rng_seed(&r, 5);
    for (int i = 0; i < 300; i++) {
        for (int k = 0; k < 8; k++) {
            uint8_t say = (uint8_t)(SLU_SAY_LABEL + slu_rng_below(&r, 3));
            uint8_t labels = say == SLU_SAY_FNW_NEGATIVE   ? 0
                             : say == SLU_SAY_FNW_POSITIVE ? 3
                                                           : (uint8_t[]){0, 1, 3}[slu_rng_below(&r, 3)];
            add_priced(b, slu_rng_below(&r, 2) ? "u" : "v", slu_rng_below(&r, 2) ? "i" : "j",
                       i < 200 ? prices[slu_rng_below(&r, 8)] : 7, true, say, labels);
        }
        double loss = step(b);
        ck_assert_msg(isfinite(loss), "%s %s: step %d: loss %g", architecture, norm, i, loss);
        for (int k = 0; k < b->n_seen; k++)
            ck_assert_msg(isfinite(b->seen[k]), "%s %s: step %d: logit %g", architecture, norm, i,
                          (double)b->seen[k]);
    }
    size_t n;
    const float *dense = slu_learner_dense(b->learner, &n);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(isfinite(dense[i]), "%s %s: parameter %zu is %g", architecture, norm, i,
                      (double)dense[i]);
    slu_commit *c = slu_commit_begin(b->store);
    OK(slu_learner_flush(b->learner, c, expect_finite_row, b));
    slu_commit_abandon(c);
    tear_down(b);
}
END_TEST

/* bf16 on a machine without a unit for it: the same arithmetic, and one warning that says so. */
START_TEST(test_bf16)
{
    const char *sets[] = {"training.precision=bf16", "training.batch_size=150", "training.dense_every=150",
                          "model.towers=[64,48]"};
    double first[2], last[2];
    slu_hash128 digests[2];
    FILE *log = tmpfile();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        if (bf16) {
            slu_products_choose(SLU_PRODUCTS_ROUNDED);
            slu_log_redirect(fileno(log), NULL);
        }
        bench *b = set_up(sets + !bf16, (size_t)3 + (size_t)bf16);
        slu_log_redirect(2, NULL);
        ck_assert_int_eq(strncmp(slu_learner_products(b->learner), "bf16", 4) == 0, bf16);
        for (int i = 0; i < 60; i++) {
            for (int k = 0; k < 150; k++) {
                char user[16], item[16];
                snprintf(user, sizeof user, "u%d", k * 7 % 101);
                snprintf(item, sizeof item, "i%d", k * 13 % 57);
                add(b, user, item, false, SLU_SAY_LABEL, (uint8_t)(k * 7 % 101 % 3 == 0));
            }
            last[bf16] = step(b);
            if (!i)
                first[bf16] = last[bf16];
        }
        digests[bf16] = slu_learner_dense_digest(b->learner);
        tear_down(b);
    }
    ck_assert_int_ne(memcmp(&digests[0], &digests[1], sizeof digests[0]), 0);
    ck_assert_msg(last[1] < .6 * first[1] && fabs(last[1] - last[0]) < .02 * last[0],
                  "loss %g to %g, fp32 %g to %g", first[1], last[1], first[0], last[0]);
    char said[2000] = "";
    rewind(log);
    size_t n = fread(said, 1, sizeof said - 1, log);
    said[n] = 0;
    const char *warning = strstr(said, "training.precision bf16 is slower than fp32 on this machine");
    ck_assert_msg(warning && strstr(warning, "why="), "%s", said);
    ck_assert_ptr_null(strstr(warning + 1, "training.precision bf16 is slower"));
    fclose(log);
}
END_TEST

int main(void)
{
    if (slu_products_best(true, NULL) != SLU_PRODUCTS_BF16)
        printf("skipped: learning with a bf16 unit: this machine has none, or no oneDNN\n");
    if (!slu_onednn(NULL))
        printf("skipped: learning with oneDNN: it is not installed\n");
    Suite *s = suite_create("learner");
    TCase *c = tcase_create("learner");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, test_prediction_comes_before_learning);
    tcase_add_test(c, test_predicting_only_teaches_nothing);
    tcase_add_test(c, test_dense_waits_for_enough_samples);
    tcase_add_test(c, test_gathered_gradients_survive);
    tcase_add_test(c, test_predictions_as_served);
    tcase_add_loop_test(c, test_threads_do_not_matter, 0, 20);
    tcase_add_test(c, test_bf16);
    tcase_add_test(c, test_admission_counts_impressions_not_samples);
    tcase_add_test(c, test_every_architecture_and_norm_learns);
    tcase_add_loop_test(c, test_absurd_values_do_not_poison, 0, 18);
    suite_add_tcase(s, c);
    return sample_run(s);
}
