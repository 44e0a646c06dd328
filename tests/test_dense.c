/* Dense parameters over a store in memory: when they step and with what, and that a store holds exactly what
 * the newest written flush had, whatever became of the flushes before and after it. */
#include "base/log.h"
#include "store/state.h"
#include "tests/memory_store.h"
#include "tests/numeric.h"
#include "tests/suite.h"
#include "trainer/dense.h"
#include <string.h>

enum { EVERY = 16 };
#define SEED 20261126u

/* Batch norm, so that running statistics lie behind the trainable parameters. */
static slu_net *small_net(void)
{
    static const uint32_t towers[] = {4};
    const slu_net_spec spec = {.architecture = "esmm",
                               .inputs = 3,
                               .tasks = 2,
                               .towers = towers,
                               .n_towers = 1,
                               .norm = SLU_NET_NORM_BATCH,
                               .seed = 5};
    slu_net *net;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_net_build(&spec, &net, &err), "%s", err.message);
    return net;
}

typedef struct bench {
    slu_options options;
    slu_net *net;
    slu_store *store;
    slu_dense d;
} bench;

static int try_open(bench *b, slu_error *err)
{
    return slu_dense_open(&b->d, &b->options, b->net, b->store, err);
}

static void reopen(bench *b)
{
    slu_error err = SLU_ERROR_INIT;
    slu_dense_free(&b->d);
    int rc = try_open(b, &err);
    ck_assert_msg(!rc && !err.code, "%s", err.message);
}

static void set_up(bench *b)
{
    const slu_store_config config = {.path = "memory", .create = true, .schema_text = "s"};
    slu_error err = SLU_ERROR_INIT;
    *b = (bench){.net = small_net()};
    b->options.optimizer =
        (slu_optimizer_opts){.dense_rate = .01, .dense_beta1 = .9, .dense_beta2 = .99, .dense_epsilon = 1e-8};
    b->options.training.dense_every = EVERY;
    ck_assert_msg(!slu_store_open(&config, &b->store, &err), "%s", err.message);
    reopen(b);
    ck_assert_uint_lt(b->d.n_trainable, b->d.n_params);
}

static void tear_down(bench *b)
{
    slu_dense_free(&b->d);
    slu_store_close(b->store);
    slu_net_free(b->net);
}

static float *copy_of(const float *p, size_t n)
{
    float *copy = floats(n);
    memcpy(copy, p, n * sizeof *p);
    return copy;
}

static bool same(const float *a, const float *b, size_t n)
{
    return !memcmp(a, b, n * sizeof *a);
}

static bool gather(bench *b, float x, uint32_t samples)
{
    for (size_t i = 0; i < b->d.n_trainable; i++)
        b->d.grads[i] += x;
    return slu_dense_gathered(&b->d, samples, NULL);
}

/* ---- steps ---- */

START_TEST(test_steps_when_enough_samples_have_contributed)
{
    bench b;
    set_up(&b);
    float *before = copy_of(b.d.params, b.d.n_params);
    ck_assert(!gather(&b, 3, EVERY - 1));
    ck_assert(same(before, b.d.params, b.d.n_params));
    ck_assert_uint_eq(b.d.gathered, EVERY - 1);
    ck_assert_uint_eq(b.d.steps, 0);
    ck_assert(gather(&b, 3, 9)); /* 24 in all: the mean is 1/4 */
    ck_assert_uint_eq(b.d.gathered, 0);
    ck_assert_uint_eq(b.d.steps, 1);
    for (size_t i = 0; i < b.d.n_trainable; i++) {
        ck_near(b.d.m[i], .1 * .25, 1e-7, "moment %zu", i);
        ck_near(b.d.v[i], .01 * .0625, 1e-7, "square %zu", i);
        ck_near(b.d.params[i], before[i] - .01, 1e-6, "parameter %zu", i);
        ck_assert(b.d.grads[i] == 0);
    }
    ck_assert(same(before + b.d.n_trainable, b.d.params + b.d.n_trainable, b.d.n_params - b.d.n_trainable));
    ck_assert(gather(&b, 1, EVERY)); /* exactly enough is enough */
    ck_assert_uint_eq(b.d.steps, 2);
    free(before);
    tear_down(&b);
}
END_TEST

/* Says whether the log got the warning that a step was left out. */
static bool warned(FILE *log)
{
    char line[1000];
    bool found = false;
    rewind(log);
    while (fgets(line, sizeof line, log))
        found |= strstr(line, "level=warn") && strstr(line, "not finite") && strstr(line, "samples=16");
    return found;
}

START_TEST(test_a_gradient_that_is_not_finite_is_left_out)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        bench b;
        set_up(&b);
        FILE *log = tmpfile();
        slu_log_redirect(fileno(log), NULL);
        gather(&b, 1, EVERY);
        const double skipped = slu_metric_value(b.d.skipped);
        ck_assert(!warned(log));
        float *params = copy_of(b.d.params, b.d.n_params), *m = copy_of(b.d.m, b.d.n_trainable),
              *v = copy_of(b.d.v, b.d.n_trainable);
        b.d.grads[b.d.n_trainable - 1] = bad[i];
        gather(&b, 1, EVERY);
        ck_assert_double_eq(slu_metric_value(b.d.skipped), skipped + 1);
        ck_assert(warned(log));
        ck_assert(same(params, b.d.params, b.d.n_params));
        ck_assert(same(m, b.d.m, b.d.n_trainable) && same(v, b.d.v, b.d.n_trainable));
        ck_assert_uint_eq(b.d.gathered, 0);
        ck_assert(gather(&b, 1, EVERY)); /* nothing of it is left in the next one */
        ck_assert_double_eq(slu_metric_value(b.d.skipped), skipped + 1);
        for (size_t k = 0; k < b.d.n_params; k++)
            ck_assert(isfinite(b.d.params[k]));
        ck_assert(!same(params, b.d.params, b.d.n_trainable));
        slu_log_redirect(2, NULL);
        fclose(log);
        free(params);
        free(m);
        free(v);
        tear_down(&b);
    }
}
END_TEST

static bool digests_differ(slu_hash128 a, slu_hash128 b)
{
    return a.lo != b.lo || a.hi != b.hi;
}

START_TEST(test_digest_follows_all_parameters)
{
    bench b;
    set_up(&b);
    const slu_hash128 first = slu_dense_digest(&b.d);
    gather(&b, 1, EVERY - 1);
    ck_assert(!digests_differ(slu_dense_digest(&b.d), first)); /* gradients are no parameters */
    gather(&b, 1, 1);
    const slu_hash128 stepped = slu_dense_digest(&b.d);
    ck_assert(digests_differ(stepped, first));
    float *last = &b.d.params[b.d.n_params - 1], was = *last; /* a running statistic */
    *last += 1;
    slu_dense_params_changed(&b.d);
    ck_assert(digests_differ(slu_dense_digest(&b.d), stepped));
    *last = was;
    slu_dense_params_changed(&b.d);
    ck_assert(!digests_differ(slu_dense_digest(&b.d), stepped));
    slu_commit *c = slu_commit_begin(b.store);
    slu_dense_flush(&b.d, c);
    ck_assert(!slu_commit_write(c, NULL));
    reopen(&b);
    ck_assert(!digests_differ(slu_dense_digest(&b.d), stepped));
    tear_down(&b);
}
END_TEST

/* ---- commits ---- */

/* Names of all that the next flush writes. The store is emptied first. */
static const char *written_by_flush(bench *b)
{
    static char names[200];
    memory_store_clear();
    slu_commit *c = slu_commit_begin(b->store);
    slu_dense_flush(&b->d, c);
    ck_assert(!slu_commit_write(c, NULL));
    *names = 0;
    for (size_t i = 0; i < memory_store_count(); i++) {
        const memory_entry *e = memory_store_at(i);
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%.*s", used ? " " : "", (int)e->key_len,
                 (const char *)e->key);
    }
    return names;
}

START_TEST(test_a_commit_has_what_changed_and_what_none_confirmed)
{
    static const char all[] = "adam.steps gathered adam.m adam.v gradients params";
    bench b;
    set_up(&b);
    ck_assert(slu_dense_is_changed(&b.d)); /* a new model is in no store */
    ck_assert_str_eq(written_by_flush(&b), "adam.steps adam.m adam.v params");
    ck_assert(slu_dense_is_changed(&b.d));
    ck_assert_str_eq(written_by_flush(&b), "adam.steps adam.m adam.v params"); /* nobody confirmed it */
    slu_dense_committed(&b.d);
    ck_assert(!slu_dense_is_changed(&b.d));
    ck_assert_str_eq(written_by_flush(&b), "");

    gather(&b, 1, 1);
    ck_assert(!slu_dense_is_changed(&b.d));
    ck_assert_str_eq(written_by_flush(&b), "gathered gradients");
    slu_dense_params_changed(&b.d); /* between flush and confirmation: of the next commit */
    slu_dense_committed(&b.d);
    ck_assert(slu_dense_is_changed(&b.d));
    ck_assert_str_eq(written_by_flush(&b), "params");
    gather(&b, 1, EVERY);
    ck_assert_str_eq(written_by_flush(&b), all); /* what the lost flush had, too */
    slu_dense_committed(&b.d);
    ck_assert_str_eq(written_by_flush(&b), "");
    tear_down(&b);
}
END_TEST

/* What was there at a flush. */
typedef struct moment {
    float *params, *m, *v, *grads;
    uint64_t steps;
    uint32_t gathered;
} moment;

static void note(moment *x, const slu_dense *d)
{
    *x = (moment){copy_of(d->params, d->n_params),
                  copy_of(d->m, d->n_trainable),
                  copy_of(d->v, d->n_trainable),
                  copy_of(d->grads, d->n_trainable),
                  d->steps,
                  d->gathered};
}

static void drop(moment *x)
{
    free(x->params);
    free(x->m);
    free(x->v);
    free(x->grads);
    *x = (moment){0};
}

static void expect(const moment *x, const slu_dense *d, int at)
{
    if (!same(x->params, d->params, d->n_params) || !same(x->m, d->m, d->n_trainable) ||
        !same(x->v, d->v, d->n_trainable) || !same(x->grads, d->grads, d->n_trainable) ||
        x->steps != d->steps || x->gathered != d->gathered)
        ck_abort_msg("action %d: the store does not hold what was flushed into its last commit", at);
}

static void learn(bench *b, slu_rng *rng)
{
    for (size_t i = 0; i < b->d.n_trainable; i++)
        b->d.grads[i] += (float)slu_rng_normal(rng);
    slu_dense_gathered(&b->d, 1 + (uint32_t)slu_rng_below(rng, 5), NULL);
}

/* Where the commit on its way is. */
typedef enum flight { NONE, FLUSHED, WRITTEN } flight;

/* Learning, commits on their way, commits that never came about, crashes. */
START_TEST(test_any_history_reloads_the_newest_written_flush)
{
    printf("seed %u\n", SEED);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    bench b;
    set_up(&b);
    moment stored, flushed = {0};
    note(&stored, &b.d); /* an empty store begins like that again */
    slu_commit *c = slu_commit_begin(b.store);
    flight at = NONE;
    int reloads = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t what = slu_rng_below(&rng, 27);
        if (what < 6) {
            learn(&b, &rng);
        } else if (what < 9) { /* a running statistic */
            b.d.params[b.d.n_params - 1 - slu_rng_below(&rng, b.d.n_params - b.d.n_trainable)] += 1;
            slu_dense_params_changed(&b.d);
        } else if (what < 15 && at == NONE) {
            slu_dense_flush(&b.d, c);
            note(&flushed, &b.d);
            at = FLUSHED;
        } else if (what < 18 && at == FLUSHED) { /* it becomes durable */
            ck_assert(!slu_commit_write(c, NULL));
            drop(&stored);
            stored = flushed;
            flushed = (moment){0};
            at = WRITTEN;
        } else if (what < 21 && at == WRITTEN) { /* it is confirmed */
            slu_dense_committed(&b.d);
            at = NONE;
        } else if (what < 26 && at == FLUSHED) { /* it never comes about */
            slu_commit_abandon(c);
            c = slu_commit_begin(b.store);
            drop(&flushed);
            at = NONE;
        } else if (what == 26) { /* a crash */
            slu_commit_abandon(c);
            c = slu_commit_begin(b.store);
            drop(&flushed);
            at = NONE;
            reopen(&b);
            expect(&stored, &b.d, i);
            reloads++;
        }
    }
    ck_assert_int_gt(reloads, 100);
    ck_assert_uint_gt(b.d.steps, 100);
    drop(&stored);
    drop(&flushed);
    tear_down(&b);
}
END_TEST

/* ---- failures ---- */

/* A store with parameters and half gathered gradients. */
static void fill_store(bench *b)
{
    set_up(b);
    gather(b, 1, EVERY);
    gather(b, 1, 3);
    slu_commit *c = slu_commit_begin(b->store);
    slu_dense_flush(&b->d, c);
    ck_assert(!slu_commit_write(c, NULL));
    slu_dense_free(&b->d);
}

START_TEST(test_half_a_state_is_refused)
{
    static const char *const names[] = {"adam.m", "adam.v", "gradients"};
    for (int i = 0; i < 3; i++) {
        bench b;
        memory_store_clear();
        fill_store(&b);
        memory_store_delete(SLU_FAMILY_DENSE, names[i], strlen(names[i]));
        slu_error err = SLU_ERROR_INIT;
        ck_assert_int_eq(try_open(&b, &err), SLU_ECORRUPT);
        ck_assert_msg(strstr(err.message, "not all of the optimizer's state") &&
                          strstr(err.message, "backup"),
                      "%s", err.message);
        tear_down(&b);
    }
    bench b;
    memory_store_clear();
    fill_store(&b);
    slu_commit *c = slu_commit_begin(b.store);
    slu_state_put_floats(c, "params", (const float[]){1, 2, 3}, 3); /* of another network */
    ck_assert(!slu_commit_write(c, NULL));
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(try_open(&b, &err), SLU_EFORMAT);
    tear_down(&b);
}
END_TEST

/* Whatever read fails is told, and the next attempt has it all. */
START_TEST(test_every_read_that_fails_is_told)
{
    bench b;
    fill_store(&b);
    unsigned nth = 1;
    for (int rc = SLU_EIO; rc; nth++) {
        slu_error err = SLU_ERROR_INIT;
        memory_store_fail(nth);
        rc = try_open(&b, &err);
        ck_assert(rc == 0 || rc == SLU_EIO);
        ck_assert_int_eq(rc, err.code);
        if (rc)
            slu_dense_free(&b.d);
    }
    ck_assert_uint_eq(nth, 1 + 6 + 1); /* params, m, v, steps, gathered, gradients, and none */
    ck_assert_uint_eq(b.d.gathered, 3);
    ck_assert(b.d.grads[0] == 1);
    memory_store_fail(0);
    tear_down(&b);
}
END_TEST

int main(void)
{
    return run_suite("dense", (const TTest *[]){test_steps_when_enough_samples_have_contributed,
                                                test_a_gradient_that_is_not_finite_is_left_out,
                                                test_digest_follows_all_parameters,
                                                test_a_commit_has_what_changed_and_what_none_confirmed,
                                                test_any_history_reloads_the_newest_written_flush,
                                                test_half_a_state_is_refused,
                                                test_every_read_that_fails_is_told, NULL});
}
