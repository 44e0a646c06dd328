#include "model/optim.h"
#include "base/rng.h"
#include "model/simd.h"
#include <math.h>
#include <string.h>

typedef float four_floats __attribute__((vector_size(16)));
typedef double four_doubles __attribute__((vector_size(32)));

/* Sum of squares in double: a dense vector may have millions of elements. Four sums side by side, each as
 * wide as a register (wider ones are kept in memory by the compiler), hide the latency of an addition. */
SLU_CLONES
static double square_sum(const float *g, size_t n)
{
    four_doubles a = {0}, b = {0}, c = {0}, d = {0};
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        four_floats x[4];
        memcpy(x, g + i, sizeof x);
        four_doubles p = __builtin_convertvector(x[0], four_doubles),
                     q = __builtin_convertvector(x[1], four_doubles),
                     r = __builtin_convertvector(x[2], four_doubles),
                     s = __builtin_convertvector(x[3], four_doubles);
        a += p * p;
        b += q * q;
        c += r * r;
        d += s * s;
    }
    a += b;
    c += d;
    a += c;
    double total = a[0] + a[1] + a[2] + a[3];
    for (; i < n; i++)
        total += (double)g[i] * g[i];
    return total;
}

typedef struct adam_constants {
    float scale, l2, beta1, beta2, rate, root_correction, epsilon;
} adam_constants;

SLU_CLONES
static void adam_loop(float *restrict params, float *restrict m, float *restrict v, float *restrict grads,
                      size_t n, const adam_constants *c)
{
    const adam_constants k = *c;
    for (size_t i = 0; i < n; i++) {
        float g = k.scale * grads[i] + k.l2 * params[i];
        m[i] = k.beta1 * m[i] + (1 - k.beta1) * g;
        v[i] = k.beta2 * v[i] + (1 - k.beta2) * g * g;
        params[i] -= k.rate * m[i] / (sqrtf(v[i]) * k.root_correction + k.epsilon);
        grads[i] = 0;
    }
}

/* One step, cut into at most MOST_PIECES pieces. */
enum { LEAST_PIECE = 16384, MOST_PIECES = 64 };

typedef struct adam_work {
    float *params, *m, *v, *grads;
    size_t n, piece;
    adam_constants constants;
    double squares[MOST_PIECES];
} adam_work;

static size_t length_of(const adam_work *w, uint32_t piece)
{
    size_t at = piece * w->piece;
    return w->n - at < w->piece ? w->n - at : w->piece;
}

static void squares_of_piece(void *ctx, uint32_t piece)
{
    adam_work *w = ctx;
    w->squares[piece] = square_sum(w->grads + piece * w->piece, length_of(w, piece));
}

static void step_piece(void *ctx, uint32_t piece)
{
    adam_work *w = ctx;
    size_t at = piece * w->piece;
    adam_loop(w->params + at, w->m + at, w->v + at, w->grads + at, length_of(w, piece), &w->constants);
}

double slu_adam_step(const slu_adam *a, float *params, float *m, float *v, float *grads, size_t n, uint64_t t,
                     double scale, const slu_parallel *p)
{
    adam_work w = {.params = params, .m = m, .v = v, .grads = grads, .n = n};
    w.piece = (n / MOST_PIECES + LEAST_PIECE) / LEAST_PIECE * LEAST_PIECE;
    const uint32_t pieces = (uint32_t)((n + w.piece - 1) / w.piece);
    slu_parallel_run(p, squares_of_piece, &w, pieces);
    double squares = 0;
    for (uint32_t i = 0; i < pieces; i++)
        squares += w.squares[i];
    double norm = fabs(scale) * sqrt(squares);
    if (!isfinite(norm)) {
        memset(grads, 0, n * sizeof *grads);
        return norm;
    }
    if (a->clip > 0 && norm > a->clip)
        scale *= a->clip / norm;
    /* The moments start at zero; dividing by 1 - beta^t removes that bias. */
    w.constants = (adam_constants){
        .scale = (float)scale,
        .l2 = (float)a->l2,
        .beta1 = (float)a->beta1,
        .beta2 = (float)a->beta2,
        .rate = (float)(a->rate / (1 - pow(a->beta1, (double)t))),
        .root_correction = (float)(1 / sqrt(1 - pow(a->beta2, (double)t))),
        .epsilon = (float)a->epsilon,
    };
    slu_parallel_run(p, step_piece, &w, pieces);
    return norm;
}

slu_row_layout slu_row_layout_of(uint32_t dim, uint32_t wide_tasks, const slu_row_rules *r)
{
    slu_row_layout l = {.dim = dim, .tasks = wide_tasks, .served = dim + wide_tasks};
    l.state_at = l.served;
    l.wide_state_at = l.state_at + (dim == 0 ? 0 : r->per_row ? 1 : dim);
    l.floats = l.wide_state_at + wide_tasks * (r->wide_ftrl ? 2 : 1);
    return l;
}

void slu_row_init(const slu_row_layout *l, const slu_row_rules *r, uint64_t seed, uint32_t table, uint64_t id,
                  float *row)
{
    memset(row, 0, l->floats * sizeof *row);
    slu_rng stream;
    slu_rng_seed(&stream, slu_mix64(slu_mix64(seed ^ slu_mix64(table)) ^ id));
    for (uint32_t i = 0; i < l->dim; i++)
        row[i] = (float)(r->init * slu_rng_normal(&stream));
    for (uint32_t i = l->state_at; i < l->wide_state_at; i++)
        row[i] = (float)r->initial;
}

/* w (D), with an accumulator per element or one for all, which grows by the mean square. */
SLU_CLONES
static void adagrad(float *restrict w, float *restrict acc, const float *restrict g, uint32_t D, int per_row,
                    float scale, float l2, float rate, float epsilon)
{
    if (per_row) {
        float sum = 0;
        for (uint32_t i = 0; i < D; i++) {
            float d = scale * g[i] + l2 * w[i];
            sum += d * d;
        }
        acc[0] += sum / (float)D;
        const float step = rate / (sqrtf(acc[0]) + epsilon);
        for (uint32_t i = 0; i < D; i++)
            w[i] -= step * (scale * g[i] + l2 * w[i]);
        return;
    }
    for (uint32_t i = 0; i < D; i++) {
        float d = scale * g[i] + l2 * w[i];
        acc[i] += d * d;
        w[i] -= rate * d / (sqrtf(acc[i]) + epsilon);
    }
}

/* FTRL-proximal per coordinate. sigma = (sqrt(n + g^2) - sqrt(n)) / alpha, written as a quotient because the
 * difference loses its digits once n is large. */
static void ftrl(float *w, float *z, float *n, float g, float alpha, float beta, float l1, float l2)
{
    float grown = *n + g * g, root = sqrtf(grown);
    float denominator = root + sqrtf(*n);
    if (denominator > 0)
        *z += g - g * g / (denominator * alpha) * *w;
    *n = grown;
    if (fabsf(*z) <= l1)
        *w = 0;
    else
        *w = -(*z - copysignf(l1, *z)) / ((beta + root) / alpha + l2);
}

static void update_embedding(const slu_row_layout *l, const slu_row_rules *r, float *row, const float *g)
{
    float squares = slu_dot(g, g, l->dim);
    /* Zero: nothing to learn, the row keeps its bits. Not finite: one bad batch must not poison a row for
     * good. */
    if (squares == 0 || !isfinite(squares))
        return;
    float scale = 1;
    if (r->clip > 0 && squares > r->clip * r->clip)
        scale = (float)(r->clip / sqrt(squares));
    adagrad(row, row + l->state_at, g, l->dim, r->per_row, scale, (float)r->l2, (float)r->rate,
            (float)r->epsilon);
}

static void update_wide(const slu_row_layout *l, const slu_row_rules *r, float *row, const float *g)
{
    float *w = row + l->dim, *state = row + l->wide_state_at;
    const uint32_t T = l->tasks;
    for (uint32_t t = 0; t < T; t++) {
        if (g[t] == 0 || !isfinite(g[t]))
            continue;
        if (r->wide_ftrl)
            ftrl(w + t, state + t, state + T + t, g[t], (float)r->wide_rate, (float)r->wide_beta,
                 (float)r->wide_l1, (float)r->wide_l2);
        else
            adagrad(w + t, state + t, g + t, 1, 0, 1, (float)r->wide_l2, (float)r->wide_rate,
                    (float)r->wide_beta);
    }
}

void slu_row_update(const slu_row_layout *l, const slu_row_rules *r, float *row, const float *demb,
                    const float *dwide)
{
    if (demb && l->dim)
        update_embedding(l, r, row, demb);
    if (dwide && l->tasks)
        update_wide(l, r, row, dwide);
}
