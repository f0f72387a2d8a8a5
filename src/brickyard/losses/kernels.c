/* Losses in one pass over memory, in fp32, or in fp64 when WIDE is defined.

   Inputs have `outer` images of `inner` pixels with `classes` scores each; element (n, c, s) is at
   n*step_n + c*step_c + s*step_s. Pixels are worked on in blocks whose scores stay in the cache.
   Every function returns 0, or 1 when memory ran out. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef WIDE

#define REAL double
#define SQRT sqrt
#define TINY DBL_MIN
#define fast_exp exp
#define fast_log1p(r, share) log1p(r)

#else

#define REAL float
#define SQRT sqrtf
#define TINY FLT_MIN

/* exp(x) for x <= 0, to 1 in the last place or two: 2^n * exp(r) with |r| <= log(2)/2. */
static inline float fast_exp(float x) {
    float y = x < -88.0f ? -88.0f : x; /* NaN stays */
    float n = (y * 1.44269504088896341f + 12582912.0f) - 12582912.0f; /* to the nearest integer */
    float r = (y - n * 0.693359375f) + n * 2.12194440e-4f, p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    union { int32_t i; float f; } power = {.i = ((int32_t)n + 127) * (1 << 23)};
    return x < -87.3f ? 0.0f : p * power.f;
}

/* log(x) for normal x > 0: e*log(2) + log(m) with m around 1. */
static inline float fast_log(float x) {
    union { float f; int32_t i; } bits = {.f = x};
    int32_t e = (bits.i - 0x3f3504f3) >> 23;
    bits.i -= e * (1 << 23);
    float f = bits.f - 1.0f, k = (float)e, p = 7.0376836292e-2f, square = f * f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    return (f + (p * f * square + (k * -2.12194440e-4f - 0.5f * square))) + k * 0.693359375f;
}

/* log(1+r) for r >= 0, exact to the last places also where r is tiny; share = 1/(1+r). */
static inline float fast_log1p(float r, float share) {
    float u = 1.0f + r;
    return fast_log(u) + (r - (u - 1.0f)) * share + (r - r); /* NaN stays */
}

#endif


typedef struct {
    const REAL *x;            /* logits */
    const int64_t *y;         /* class indices, (outer, inner); or NULL */
    const REAL *t;            /* a mask in the layout of x; or NULL */
    const uint8_t *keep;      /* pixels that count, (outer, inner); or NULL for all */
    const REAL *weight;       /* one weight per class; or NULL */
    const REAL *up;           /* gradients of the outputs: 1, or one per pixel */
    REAL *out;                /* losses of pixels; or NULL for their sum alone */
    REAL *grad;               /* gradients of x, in its layout */
    double *sums;             /* sums of the whole */
    int64_t outer, inner, classes, step_n, step_c, step_s, step_up;
    int64_t halves;           /* twice the exponent of the focal losses */
    int64_t threads;
    double alpha;             /* weight of 1 in the binary focal loss; below 0 for none */
} args;

/* Go through the pixels of a block, several at a time: they do not depend on each other. */
#define EACH _Pragma("omp simd") for (int64_t i = 0; i < n; i++)

/* w = q^(halves/2) */
static void power_of(const REAL *restrict q, int64_t halves, int64_t n, REAL *restrict base,
                     REAL *restrict w) {
    EACH base[i] = q[i], w[i] = halves & 1 ? SQRT(q[i]) : 1;
    for (int64_t k = halves >> 1; k; k >>= 1) {
        if (k & 1) EACH w[i] *= base[i];
        if (k > 1) EACH base[i] *= base[i];
    }
}

/* Copy a block's scores to `to`, one row of `room` per class. */
static void fetch(const args *a, const REAL *x, int64_t n, int64_t room, REAL *to) {
    if (a->step_s == 1) {
        for (int64_t c = 0; c < a->classes; c++)
            memcpy(to + c * room, x + c * a->step_c, (size_t)n * sizeof(REAL));
        return;
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < a->classes; c++) to[c * room + i] = x[i * a->step_s + c * a->step_c];
}

static void store(const args *a, const REAL *from, int64_t n, int64_t room, REAL *x) {
    if (a->step_s == 1) {
        for (int64_t c = 0; c < a->classes; c++)
            memcpy(x + c * a->step_c, from + c * room, (size_t)n * sizeof(REAL));
        return;
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < a->classes; c++) x[i * a->step_s + c * a->step_c] = from[c * room + i];
}

/* Turn a block's scores into exp(x - top); write tops, their classes, and the sum of the others. */
static void softmax(const args *a, int64_t n, int64_t room, REAL *e, REAL *top, REAL *first,
                        REAL *rest) {
    EACH top[i] = e[i], first[i] = 0, rest[i] = 0;
    for (int64_t c = 1; c < a->classes; c++) {
        const REAL *x = e + c * room;
        EACH {
            REAL more = x[i] > top[i]; /* sums, since a store under a condition is slow */
            top[i] = x[i] > top[i] ? x[i] : top[i];
            first[i] += more * ((REAL)c - first[i]);
        }
    }
    for (int64_t c = 0; c < a->classes; c++) {
        REAL *x = e + c * room, mine = (REAL)c;
        EACH {
            REAL v = fast_exp(x[i] - top[i]);
            x[i] = v;
            rest[i] += first[i] == mine ? v - 1 : v; /* 0 for the top itself; NaN stays NaN */
        }
    }
}

/* Run `work` over all blocks of `room` pixels. The blocks are dealt out in SLICES with sums of their
   own, which are added in order: results do not depend on the number of threads. */
#define SLICES 64
typedef void block_work(const args *a, int64_t block, int64_t room, REAL *scratch, double *sums);

static int run(const args *a, int64_t blocks, int64_t room, int64_t rows, int64_t count,
               block_work *work) {
    double *sums = calloc((size_t)(SLICES * count + 1), sizeof(double));
    int failed = !sums;
#pragma omp parallel num_threads((int)a->threads) reduction(| : failed)
    {
        REAL *scratch = malloc((size_t)(room * rows + 1) * sizeof(REAL));
        failed |= !scratch;
#pragma omp for schedule(dynamic)
        for (int64_t k = 0; k < SLICES; k++)
            for (int64_t b = blocks * k / SLICES; !failed && b < blocks * (k + 1) / SLICES; b++)
                work(a, b, room, scratch, sums + k * count);
        free(scratch);
    }
    for (int64_t k = 0; !failed && k < SLICES; k++)
        for (int64_t c = 0; c < count; c++) a->sums[c] += sums[k * count + c];
    free(sums);
    return failed;
}

/* Where a block of pixels lies. */
typedef struct { int64_t n, at, place; } spot;

static spot find(const args *a, int64_t block, int64_t room) {
    int64_t each = (a->inner + room - 1) / room, s = block % each * room;
    int64_t n = a->inner - s < room ? a->inner - s : room;
    return (spot){n, block / each * a->inner + s, block / each * a->step_n + s * a->step_s};
}

static int run_pixels(const args *a, int64_t rows, int64_t count, block_work *work) {
    int64_t room = 32768 / (a->classes + 1);
    room = room < 16 ? 16 : room > 256 ? 256 : room;
    int64_t blocks = a->outer * ((a->inner + room - 1) / room);
    return run(a, blocks, room, a->classes + rows, count, work);
}

/* ---- focal: l = w*n, n = -log p_y, w = weight_y * (1-p_y)^g ---------------------------------- */

/* Write 1/sum, 1 - p, n and w of each pixel behind the exponentials. */
static void focal_terms(const args *a, spot b, int64_t room, REAL *e) {
    int64_t n = b.n, at = b.at;
    REAL *top = e + a->classes * room, *first = top + room, *rest = first + room;
    REAL *own = rest + room, *label = own + room;
    fetch(a, a->x + b.place, n, room, e);
    for (int64_t i = 0; i < n; i++) {
        int64_t y = a->keep && !a->keep[at + i] ? 0 : a->y[at + i];
        own[i] = e[y * room + i], label[i] = (REAL)y;
    }
    softmax(a, n, room, e, top, first, rest);
    EACH {
        REAL back = top[i] - own[i], share = 1 / (1 + rest[i]);
        REAL nll = fast_log1p(rest[i], share) + back;
        REAL q = label[i] == first[i] ? rest[i] * share : 1 - fast_exp(-back) * share;
        first[i] = q, rest[i] = nll, top[i] = share;
    }
    power_of(first, a->halves, n, label + room, own);
    if (a->weight) for (int64_t i = 0; i < n; i++) own[i] *= a->weight[(int64_t)label[i]];
    if (a->keep) EACH own[i] = a->keep[at + i] ? own[i] : 0;
}

static void focal_block(const args *a, int64_t block, int64_t room, REAL *e, double *sums) {
    spot b = find(a, block, room);
    int64_t n = b.n, at = b.at;
    REAL *nll = e + (a->classes + 2) * room, *w = nll + room, sum = 0;
    focal_terms(a, b, room, e);
    EACH nll[i] = w[i] == 0 && nll[i] == nll[i] ? 0 : nll[i] * w[i];
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += nll[i];
    sums[0] += sum;
    if (a->out) memcpy(a->out + at, nll, n * sizeof(REAL));
}

/* dl/dx_j = c*([j = y] - p_j), c = -w*(1 + g*(n/(1-p) - n)) */
static void focal_slopes(const args *a, int64_t block, int64_t room, REAL *e, double *sums) {
    spot b = find(a, block, room);
    int64_t n = b.n, at = b.at;
    REAL *share = e + a->classes * room, *q = share + room, *nll = q + room, *w = nll + room;
    REAL g = (REAL)a->halves / 2;
    focal_terms(a, b, room, e);
    EACH {
        REAL c = g * (nll[i] / (q[i] > TINY ? q[i] : TINY) - nll[i]) + 1;
        w[i] = a->up[(at + i) * a->step_up] * (w[i] == 0 && c == c ? 0 : w[i] * c);
        share[i] *= w[i];
    }
    for (int64_t c = 0; c < a->classes; c++)
        EACH e[c * room + i] *= share[i];
    for (int64_t i = 0; i < n; i++) {
        int64_t y = a->keep && !a->keep[at + i] ? 0 : a->y[at + i];
        e[y * room + i] = -w[i] * q[i];
    }
    store(a, e, n, room, a->grad + b.place);
    (void)sums;
}

int focal(const args *a) {
    return a->grad ? run_pixels(a, 6, 0, focal_slopes) : run_pixels(a, 6, 1, focal_block);
}

/* ---- binary focal: q = s*(1-t) + (1-s)*t, l = a*q^g*n ---------------------------------------- */

static void binary_block(const args *a, int64_t block, int64_t room, REAL *yes, double *sums) {
    REAL one = a->alpha < 0 ? 1 : (REAL)a->alpha, zero = a->alpha < 0 ? 1 : (REAL)(1 - a->alpha);
    REAL *no = yes + room, *nll = no + room, *q = nll + room, *w = q + room, *base = w + room;
    int64_t at = block * room, n = a->inner - at < room ? a->inner - at : room;
    const REAL *x = a->x + at, *t = a->t + at;
    REAL g = (REAL)a->halves / 2, sum = 0;
    EACH {
        REAL size = x[i] < 0 ? -x[i] : x[i], e = fast_exp(-size), share = 1 / (1 + e);
        REAL small = e * share, far = x[i] > 0 ? x[i] : 0;
        yes[i] = x[i] < 0 ? small : share, no[i] = x[i] < 0 ? share : small;
        q[i] = yes[i] * (1 - t[i]) + no[i] * t[i];
        nll[i] = (far - x[i] * t[i]) + fast_log1p(e, share); /* large terms first */
    }
    power_of(q, a->halves, n, base, w);
    EACH w[i] *= one * t[i] + zero * (1 - t[i]);
    if (!a->grad) {
        EACH nll[i] *= w[i];
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) sum += nll[i];
        sums[0] += sum;
        if (a->out) memcpy(a->out + at, nll, (size_t)n * sizeof(REAL));
        return;
    }
    const REAL *up = a->up + at * a->step_up;
    REAL *grad = a->grad + at;
    EACH {
        REAL slope = g * nll[i] / (q[i] > TINY ? q[i] : TINY);
        slope *= yes[i] * no[i] * (1 - 2 * t[i]);
        grad[i] = w[i] * (slope + yes[i] * (1 - t[i]) - no[i] * t[i]);
    }
    if (a->step_up) EACH grad[i] *= up[i];
    else EACH grad[i] *= *up;
}

int binary_focal(const args *a) {
    return run(a, (a->inner + 255) / 256, 256, 6, a->grad ? 0 : 1, binary_block);
}

/* ---- counts under a softmax: hits, predictions and truths per class -------------------------- */

static void count_block(const args *a, int64_t block, int64_t room, REAL *e, double *sums) {
    spot b = find(a, block, room);
    int64_t n = b.n, at = b.at;
    REAL *top = e + a->classes * room, *first = top + room, *rest = first + room;
    fetch(a, a->x + b.place, n, room, e);
    softmax(a, n, room, e, top, first, rest);
    EACH rest[i] = 1 / (1 + rest[i]);
    if (a->keep) EACH rest[i] = a->keep[at + i] ? rest[i] : rest[i] * 0;
    for (int64_t c = 0; c < a->classes; c++) {
        REAL sum = 0;
        EACH top[i] = e[c * room + i] * rest[i];
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) sum += top[i];
        sums[a->classes + c] += sum;
    }
    for (int64_t i = 0; i < n; i++) {
        if (a->keep && !a->keep[at + i]) continue;
        int64_t y = a->y[at + i];
        sums[y] += e[y * room + i] * rest[i];
        sums[2 * a->classes + y] += 1;
    }
}

/* with a, b the gradients of hits and predictions: dL/dx_c = p_c*(b_c - d) + [c = y]*a_y*p_y,
   d = sum_c p_c*b_c + a_y*p_y */
static void count_slopes(const args *a, int64_t block, int64_t room, REAL *e, double *sums) {
    spot b = find(a, block, room);
    int64_t n = b.n, at = b.at;
    REAL *mean = e + a->classes * room, *first = mean + room, *rest = first + room;
    const REAL *hit = a->up, *shown = a->up + a->classes;
    fetch(a, a->x + b.place, n, room, e);
    softmax(a, n, room, e, mean, first, rest);
    EACH rest[i] = 1 / (1 + rest[i]), mean[i] = 0;
    if (a->keep) EACH rest[i] = a->keep[at + i] ? rest[i] : rest[i] * 0;
    for (int64_t c = 0; c < a->classes; c++)
        EACH e[c * room + i] *= rest[i], mean[i] += e[c * room + i] * shown[c];
    for (int64_t i = 0; i < n; i++) {
        int64_t y = a->y[at + i];
        first[i] = e[y * room + i] * hit[y], mean[i] += first[i];
    }
    for (int64_t c = 0; c < a->classes; c++)
        EACH e[c * room + i] *= shown[c] - mean[i];
    for (int64_t i = 0; i < n; i++) e[a->y[at + i] * room + i] += first[i];
    store(a, e, n, room, a->grad + b.place);
    (void)sums;
}

int softmax_counts(const args *a) {
    return a->grad ? run_pixels(a, 3, 0, count_slopes)
                   : run_pixels(a, 3, 3 * a->classes, count_block);
}

/* ---- counts under a sigmoid; `keep` is in the layout of x, which is contiguous ---------------- */

static void sigmoid_block(const args *a, int64_t block, int64_t room, REAL *p, double *sums) {
    int64_t each = (a->inner + room - 1) / room, s = block % each * room;
    int64_t at = block / each * a->inner + s, c = block / each % a->classes;
    int64_t n = a->inner - s < room ? a->inner - s : room;
    const REAL *x = a->x + at, *t = a->t + at;
    REAL hit = 0, shown = 0, truth = 0;
    if (a->grad) { /* dL/dx = p*(1-p)*(a*t + b) */
        REAL mine = a->up[c], all = a->up[a->classes + c], *grad = a->grad + at;
        EACH {
            REAL e = fast_exp(x[i] < 0 ? x[i] : -x[i]), share = 1 / (1 + e);
            grad[i] = e * share * share * (mine * t[i] + all);
        }
        if (a->keep) EACH grad[i] = a->keep[at + i] ? grad[i] : grad[i] * 0;
        return;
    }
    EACH {
        REAL e = fast_exp(x[i] < 0 ? x[i] : -x[i]), share = 1 / (1 + e);
        p[i] = x[i] < 0 ? e * share : share;
    }
    if (a->keep) EACH p[i] = a->keep[at + i] ? p[i] : p[i] * 0;
#pragma omp simd reduction(+ : hit, shown, truth)
    for (int64_t i = 0; i < n; i++) hit += p[i] * t[i], shown += p[i], truth += t[i];
    sums[c] += hit, sums[a->classes + c] += shown, sums[2 * a->classes + c] += truth;
}

int sigmoid_counts(const args *a) {
    int64_t blocks = a->outer * a->classes * ((a->inner + 1023) / 1024);
    return run(a, blocks, 1024, 1, a->grad ? 0 : 3 * a->classes, sigmoid_block);
}

#ifndef WIDE

/* The slope of the Lovasz extension at each error: the drop in overlap when the pixel joins the set
   of wrong ones, from the largest error down; equal errors in their order. Errors are >= 0. */
int lovasz_slopes(const float *errors, const uint8_t *truth, float *slopes, int64_t classes,
                  int64_t pixels, int64_t threads) {
    int64_t failed = 0;
#pragma omp parallel for num_threads((int)threads) reduction(| : failed)
    for (int64_t c = 0; c < classes; c++) {
        uint64_t *from = malloc(2 * (size_t)pixels * sizeof(uint64_t)), *to = from + pixels;
        int64_t starts[3][2048] = {{0}}, total = 0, hits = 0;
        if (!from || pixels > UINT32_MAX) {
            failed = 1, free(from);
            continue;
        }
        for (int64_t i = 0; i < pixels; i++) { /* the bits of errors >= 0 are ordered as they are */
            union { float f; uint32_t i; } bits = {.f = errors[c * pixels + i]};
            uint32_t key = ~(bits.i & 0x7fffffffu);
            from[i] = (uint64_t)key << 32 | (uint64_t)i;
            starts[0][key & 2047]++, starts[1][key >> 11 & 2047]++, starts[2][key >> 22]++;
            total += truth[c * pixels + i] != 0;
        }
        for (int digit = 0; digit < 3; digit++) { /* least first; each pass keeps the order */
            int64_t place = 0, *start = starts[digit];
            for (int k = 0; k < 2048; k++) {
                int64_t count = start[k];
                start[k] = place, place += count;
            }
            for (int64_t i = 0; i < pixels; i++)
                to[start[from[i] >> (32 + 11 * digit) & (digit < 2 ? 2047 : 1023)]++] = from[i];
            uint64_t *swap = from;
            from = to, to = swap;
        }
        for (int64_t rank = 0; rank < pixels; rank++) {
            int64_t i = (int64_t)(from[rank] & UINT32_MAX), mine = truth[c * pixels + i] != 0;
            hits += mine;
            double joined = (double)(total + (rank + 1 - hits)), left = (double)(total - hits);
            double drop = mine || rank == 0 ? 1 / joined : left / (joined * (joined - 1));
            slopes[c * pixels + i] = (float)drop;
        }
        free(from < to ? from : to);
    }
    return (int)failed;
}

#endif
