/* What the machine can do at best: read memory, and multiply bytes. Built and called by limits.py. */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

enum { MAX_THREADS = 256, CHAINS = 16, STEPS = 4096, PIECE = 1 << 14, PIECES = 4096 };

typedef int64_t lanes __attribute__((vector_size(64), aligned(64)));

typedef struct task {
    const lanes* data;
    size_t count;   /* of 64-byte lines */
    double seconds; /* to go on for */
    double rate;    /* result: units a second */
} task;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void* a, const void* b) {
    double x = *(const double*)a, y = *(const double*)b;
    return (x > y) - (x < y);
}

/* The work is cut into pieces much shorter than a time slice: the median piece was not interrupted, however busy the
 * machine is, and still shared the memory with the other threads. */
static double median(double* times, size_t count) {
    qsort(times, count, sizeof *times, by_size);
    return times[count / 2];
}

/* A piece is PIECE lines; over less data, as many passes as make about that. */
static void* read_lines(void* argument) {
    task* t = argument;
    lanes sum[8] = {0};
    double times[PIECES];
    size_t lines = t->count / 8 * 8, pieces = 0, at = 0;
    if (lines == 0) return NULL;
    double start = now(), begin = start;
    do {
        for (size_t done = 0; done < PIECE; done += 8) {
            for (int j = 0; j < 8; j++) sum[j] ^= t->data[at + (size_t)j];
            at = at + 8 < lines ? at + 8 : 0;
        }
        double end = now();
        times[pieces++] = end - begin;
        begin = end;
    } while (begin - start < t->seconds && pieces < PIECES);
    for (int j = 1; j < 8; j++) sum[0] ^= sum[j];
    __asm__ volatile("" ::"m"(sum[0]));
    t->rate = 64.0 * PIECE / median(times, pieces);
    return NULL;
}

/* Independent chains of dot products of bytes, operands in registers. */
static void* multiply_bytes(void* argument) {
    task* t = argument;
    double times[PIECES], macs = 0, start = now(), begin = start;
    size_t pieces = 0;
    do {
#if defined(__AVX512VNNI__)
        __m512i acc[CHAINS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
        for (int j = 0; j < CHAINS; j++) acc[j] = _mm512_setzero_si512();
        for (int i = 0; i < STEPS; i++)
            for (int j = 0; j < CHAINS; j++) {
                acc[j] = _mm512_dpbusd_epi32(acc[j], a, b);
                __asm__ volatile("" : "+v"(acc[j]));
            }
        macs = 64.0 * STEPS * CHAINS;
#elif defined(__AVX2__)
        __m256i acc[CHAINS / 2], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(2), one = _mm256_set1_epi16(1);
        for (int j = 0; j < CHAINS / 2; j++) acc[j] = _mm256_setzero_si256();
        for (int i = 0; i < STEPS; i++)
            for (int j = 0; j < CHAINS / 2; j++) {
                __asm__ volatile("" : "+x"(a));
                acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), one));
            }
        for (int j = 0; j < CHAINS / 2; j++) __asm__ volatile("" : "+x"(acc[j]));
        macs = 32.0 * STEPS * (CHAINS / 2);
#elif defined(__ARM_FEATURE_DOTPROD)
        int32x4_t acc[CHAINS];
        int8x16_t a = vdupq_n_s8(1), b = vdupq_n_s8(2);
        for (int j = 0; j < CHAINS; j++) acc[j] = vdupq_n_s32(0);
        for (int i = 0; i < STEPS; i++)
            for (int j = 0; j < CHAINS; j++) {
                acc[j] = vdotq_s32(acc[j], a, b);
                __asm__ volatile("" : "+w"(acc[j]));
            }
        macs = 16.0 * STEPS * CHAINS;
#else
        break;
#endif
        double end = now();
        times[pieces++] = end - begin;
        begin = end;
    } while (begin - start < t->seconds && pieces < PIECES);
    t->rate = pieces ? macs / median(times, pieces) : 0;
    return NULL;
}

static double on_threads(void* (*work)(void*), const void* data, size_t bytes, int threads, double seconds) {
    pthread_t handles[MAX_THREADS];
    task tasks[MAX_THREADS];
    double sum = 0;
    if (threads < 1 || threads > MAX_THREADS) return 0;
    size_t share = bytes / 64 / (size_t)threads;
    for (int i = 0; i < threads; i++) tasks[i] = (task){(const lanes*)data + share * (size_t)i, share, seconds, 0};
    int started = 0;
    while (started < threads && pthread_create(&handles[started], NULL, work, &tasks[started]) == 0) started++;
    for (int i = 0; i < started; i++) pthread_join(handles[i], NULL), sum += tasks[i].rate;
    return started == threads ? sum : 0;
}

/* Bytes a second, reading `bytes` of `data` (64-byte aligned, 512 bytes a thread at least) over and over; 0 on failure. */
double read_rate(const void* data, size_t bytes, int threads, double seconds) {
    return on_threads(read_lines, data, bytes, threads, seconds);
}

/* Multiply-adds of bytes a second; 0 where no instruction for it is known. */
double int8_rate(int threads, double seconds) { return on_threads(multiply_bytes, NULL, 0, threads, seconds); }
