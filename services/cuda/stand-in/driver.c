// A stand-in for two GPUs: the functions of CUDA's driver, cuBLAS and cuRAND that the forward pass calls, in memory of the host.
//
// It lets machines without a GPU run all of our code for one: that the network answers as on the processor, whatever the batch,
// and which calls it takes. It says nothing of speed, and nothing of real kernels: those that candle launches are computed here
// by their names, for 32-bit floats. What it does not know ends the process with a message.
//
// CUDA_STAND_IN_TRACE names a file to which every call is appended, a line each: its name, and its bytes if it copies.

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
typedef uint64_t DevicePointer;
typedef const char *Function;

static void trace(const char *call, size_t bytes) {
    const char *path = getenv("CUDA_STAND_IN_TRACE");
    if (path == NULL) return;
    FILE *file = fopen(path, "a");
    if (file == NULL) return;
    fprintf(file, "%s %zu\n", call, bytes);
    fclose(file);
}

static void give_up(const char *what, const char *name) {
    fprintf(stderr, "the stand-in for a GPU has no %s `%s`: add it to services/cuda/stand-in/driver.c\n", what, name);
    exit(70);
}

// ── The driver ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

enum { DEVICES = 2 };
static __thread void *current_context;
static int contexts[DEVICES], pools[DEVICES], the_stream, the_rest;

Status cuInit(unsigned flags) { (void)flags; return 0; }
Status cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= DEVICES) return 101; // no such device
    *device = ordinal;
    return 0;
}
Status cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 115 /* memory pools */ ? 1 : 1024;
    return 0;
}
Status cuDeviceGetDefaultMemPool(void **pool, int device) { *pool = &pools[device]; return 0; }
Status cuMemPoolSetAttribute(void *pool, int attribute, void *value) {
    if ((pool != &pools[0] && pool != &pools[1]) || attribute != 4 || *(uint64_t *)value != UINT64_MAX) return 1;
    trace("keep-memory", 0);
    return 0;
}
Status cuDevicePrimaryCtxRetain(void **context, int device) { *context = &contexts[device]; return 0; }
Status cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return 0; }
Status cuCtxGetCurrent(void **context) { *context = current_context; return 0; }
Status cuCtxSetCurrent(void *context) { current_context = context; return 0; }
Status cuCtxDestroy_v2(void *context) { (void)context; return 0; }
Status cuCtxSynchronize(void) { trace("synchronize", 0); return 0; }
Status cuGetErrorString(Status status, const char **text) {
    *text = status == 101 ? "no such device (of the stand-in)" : "an error (of the stand-in)";
    return 0;
}
Status cuGetErrorName(Status status, const char **text) { return cuGetErrorString(status, text); }

// Copies from page-locked memory that the GPU has not made yet: a real one makes them while the host goes on. They are made when
// something else comes to the stream after them, or somebody waits for them.
static struct { void *to; const void *from; size_t bytes; } on_their_way[64];
static size_t how_many;
static pthread_mutex_t way_mutex = PTHREAD_MUTEX_INITIALIZER;

static void arrive(void) {
    pthread_mutex_lock(&way_mutex);
    for (size_t i = 0; i < how_many; i++) memcpy(on_their_way[i].to, on_their_way[i].from, on_their_way[i].bytes);
    how_many = 0;
    pthread_mutex_unlock(&way_mutex);
}
static void send_later(void *to, const void *from, size_t bytes) {
    if (how_many == sizeof on_their_way / sizeof *on_their_way) arrive();
    pthread_mutex_lock(&way_mutex);
    on_their_way[how_many].to = to, on_their_way[how_many].from = from, on_their_way[how_many].bytes = bytes;
    how_many++;
    pthread_mutex_unlock(&way_mutex);
}
// Something else comes to a stream, which must be the one that all threads share: the others that CUDA has are each thread's own.
static void on_stream(const void *stream) {
    if (stream != &the_stream) give_up("stream", "but that of the device");
    arrive();
}

Status cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = &the_stream; return 0; }
Status cuStreamDestroy_v2(void *stream) { (void)stream; return 0; }
Status cuStreamSynchronize(void *stream) { on_stream(stream); trace("synchronize", 0); return 0; }
Status cuStreamWaitEvent(void *stream, void *event, unsigned flags) { (void)stream, (void)event, (void)flags; return 0; }
Status cuStreamIsCapturing(void *stream, int *status) { (void)stream; *status = 0; return 0; }
Status cuEventCreate(bool **event, unsigned flags) {
    (void)flags;
    trace("event", 0);
    *event = calloc(1, sizeof **event);
    return *event == NULL ? 2 : 0;
}
Status cuEventDestroy_v2(bool *event) { free(event); return 0; }
Status cuEventRecord(bool *event, void *stream) { (void)stream; trace("record", 0); *event = true; return 0; }
// One that was never recorded is not waited for.
Status cuEventSynchronize(bool *event) { if (*event) arrive(); return 0; }

static Status allocate(void **pointer, size_t bytes) {
    // As a GPU's memory: anything may be in there. NaN of what is read before it was written spreads to the answers.
    *pointer = malloc(bytes ? bytes : 1);
    if (*pointer == NULL) return 2;
    memset(*pointer, 0xff, bytes);
    return 0;
}
Status cuMemAllocAsync(DevicePointer *pointer, size_t bytes, void *stream) {
    (void)stream;
    trace("allocate", bytes);
    return allocate((void **)pointer, bytes);
}
Status cuMemAlloc_v2(DevicePointer *pointer, size_t bytes) { return cuMemAllocAsync(pointer, bytes, NULL); }
Status cuMemFreeAsync(DevicePointer pointer, void *stream) { on_stream(stream); free((void *)pointer); return 0; }
Status cuMemFree_v2(DevicePointer pointer) { return cuMemFreeAsync(pointer, &the_stream); }
Status cuMemGetInfo_v2(size_t *available, size_t *total) { *available = 3u << 28; *total = 1u << 30; return 0; }

// Page-locked memory, by its start: copies from elsewhere make the driver wait.
static struct { const char *start; size_t bytes; } locked[256];
static pthread_mutex_t locked_mutex = PTHREAD_MUTEX_INITIALIZER;

// The entry of memory that begins at `start`, or a free one for NULL; less than 0 if there is none. Ends with the table locked.
static int locked_entry(const char *start) {
    pthread_mutex_lock(&locked_mutex);
    for (size_t i = 0; i < sizeof locked / sizeof *locked; i++) {
        if (locked[i].start == start) return (int)i;
    }
    return -1;
}
Status cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    (void)flags;
    int entry = locked_entry(NULL);
    Status status = entry < 0 ? 2 : allocate(pointer, bytes);
    if (status == 0) locked[entry].start = *pointer, locked[entry].bytes = bytes;
    pthread_mutex_unlock(&locked_mutex);
    return status;
}
Status cuMemFreeHost(void *pointer) {
    int entry = locked_entry(pointer);
    if (entry >= 0) {
        pthread_mutex_lock(&way_mutex);
        for (size_t i = 0; i < how_many; i++) {
            if (on_their_way[i].from == pointer) give_up("memory", "that is freed while the GPU copies from it");
        }
        pthread_mutex_unlock(&way_mutex);
        locked[entry].start = NULL;
        free(pointer);
    }
    pthread_mutex_unlock(&locked_mutex);
    return entry < 0;
}
static bool is_locked(const char *start, size_t bytes) {
    int entry = locked_entry(start);
    bool found = entry >= 0 && bytes <= locked[entry].bytes;
    pthread_mutex_unlock(&locked_mutex);
    return found;
}
Status cuMemcpyHtoDAsync_v2(DevicePointer to, const void *from, size_t bytes, void *stream) {
    on_stream(stream);
    bool later = is_locked(from, bytes);
    trace(later ? "upload-locked" : "upload", bytes);
    if (later) send_later((void *)to, from, bytes);
    else memcpy((void *)to, from, bytes);
    return 0;
}
Status cuMemcpyDtoHAsync_v2(void *to, DevicePointer from, size_t bytes, void *stream) {
    on_stream(stream);
    trace("read", bytes);
    memcpy(to, (void *)from, bytes);
    return 0;
}
Status cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes, void *stream) {
    on_stream(stream);
    memcpy((void *)to, (void *)from, bytes);
    return 0;
}
Status cuMemcpyPeerAsync(DevicePointer to, void *there, DevicePointer from, void *here, size_t bytes, void *stream) {
    (void)there, (void)here;
    return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}
Status cuMemsetD8Async(DevicePointer at, unsigned char value, size_t bytes, void *stream) {
    on_stream(stream);
    memset((void *)at, value, bytes);
    return 0;
}

Status cuModuleLoad(void **module, const char *path) { (void)path; *module = &the_rest; return 0; }
Status cuModuleLoadData(void **module, const void *image) { (void)image; *module = &the_rest; return 0; }
Status cuModuleUnload(void *module) { (void)module; return 0; }
Status cuModuleGetFunction(Function *function, void *module, const char *name) {
    (void)module;
    *function = strdup(name);
    return *function == NULL;
}

// ── candle's kernels ────────────────────────────────────────────────────────────────────────────────────────────────────────

// Where the element `index` of a tensor lies; `layout` are its dimensions and strides, or nothing if it is contiguous.
static size_t place(size_t index, size_t rank, const size_t *dimensions, const size_t *strides) {
    if (dimensions == NULL) return index;
    size_t found = 0;
    for (size_t d = rank; d-- > 0;) {
        found += index % dimensions[d] * strides[d];
        index /= dimensions[d];
    }
    return found;
}

#define ARGUMENT(type, index) (*(type *)arguments[index])

typedef float (*Unary)(float);
static float same(float x) { return x; }
static float rectified(float x) { return x > 0 ? x : 0; }
static const struct { const char *name; Unary compute; } unaries[] = {
    {"ucopy_f32", same}, {"uexp_f32", expf}, {"ulog_f32", logf}, {"urelu_f32", rectified},
};

typedef float (*Binary)(float, float);
static float sum(float x, float y) { return x + y; }
static float difference(float x, float y) { return x - y; }
static float product(float x, float y) { return x * y; }
static float quotient(float x, float y) { return x / y; }
static const struct { const char *name; Binary compute; } binaries[] = {
    {"badd_f32", sum}, {"bsub_f32", difference}, {"bmul_f32", product}, {"bdiv_f32", quotient}, {"bmaximum_f32", fmaxf},
};

static void reduce(size_t answers, void **arguments, bool greatest) {
    size_t each = ARGUMENT(size_t, 1), rank = ARGUMENT(size_t, 2);
    const size_t *layout = ARGUMENT(const size_t *, 3);
    const float *from = ARGUMENT(const float *, 4);
    float *to = ARGUMENT(float *, 5);
    for (size_t out = 0; out < answers; out++) {
        float result = greatest ? -INFINITY : 0;
        for (size_t i = 0; i < each; i++) {
            float x = from[place(out * each + i, rank, layout, layout + rank)];
            result = greatest ? fmaxf(result, x) : result + x;
        }
        to[out] = result;
    }
}

// [batch, rows, columns, channels, kernel rows, kernel columns] of [batch, channels, rows, columns].
static void unfold(void **arguments) {
    size_t count = ARGUMENT(size_t, 0), rows = ARGUMENT(size_t, 1), columns = ARGUMENT(size_t, 2);
    size_t kernel_rows = ARGUMENT(size_t, 3), kernel_columns = ARGUMENT(size_t, 4);
    size_t stride = ARGUMENT(size_t, 5), padding = ARGUMENT(size_t, 6), dilation = ARGUMENT(size_t, 7);
    const size_t *dimensions = ARGUMENT(const size_t *, 8), *strides = dimensions + 4;
    const float *from = ARGUMENT(const float *, 9);
    float *to = ARGUMENT(float *, 10);
    for (size_t out = 0; out < count; out++) {
        size_t rest = out, kernel_column = rest % kernel_columns;
        size_t kernel_row = (rest /= kernel_columns) % kernel_rows, channel = (rest /= kernel_rows) % dimensions[1];
        size_t column = (rest /= dimensions[1]) % columns, row = (rest /= columns) % rows, image = rest / rows;
        size_t y = row * stride + kernel_row * dilation - padding, x = column * stride + kernel_column * dilation - padding;
        bool inside = y < dimensions[2] && x < dimensions[3];
        to[out] = inside ? from[image * strides[0] + channel * strides[1] + y * strides[2] + x * strides[3]] : 0;
    }
}

static void select_by_index(void **arguments) {
    const uint32_t *indices = ARGUMENT(const uint32_t *, 3);
    const float *from = ARGUMENT(const float *, 4);
    float *to = ARGUMENT(float *, 5);
    size_t length = ARGUMENT(size_t, 7), chosen = ARGUMENT(size_t, 8), each = ARGUMENT(size_t, 9);
    for (size_t out = 0; out < ARGUMENT(size_t, 0); out++) {
        uint32_t index = indices[out / each % chosen];
        if (index != UINT32_MAX && index >= length) give_up("element", "beyond the end");
        to[out] = index == UINT32_MAX ? 0 : from[(out / (chosen * each) * length + index) * each + out % each];
    }
}

static void pool(void **arguments, size_t threads) {
    size_t width = ARGUMENT(size_t, 1), height = ARGUMENT(size_t, 2), right = ARGUMENT(size_t, 3), down = ARGUMENT(size_t, 4);
    const size_t *dimensions = ARGUMENT(const size_t *, 5), *strides = dimensions + 4;
    const float *from = ARGUMENT(const float *, 6);
    float *to = ARGUMENT(float *, 7);
    size_t rows = (dimensions[2] - width) / right + 1, columns = (dimensions[3] - height) / down + 1;
    size_t count = dimensions[0] * dimensions[1] * rows * columns;
    for (size_t out = 0; out < count && out < threads; out++) {
        size_t column = out % columns, row = out / columns % rows;
        size_t channel = out / columns / rows % dimensions[1], image = out / columns / rows / dimensions[1];
        float result = -INFINITY;
        for (size_t y = row * right; y < row * right + width; y++) {
            for (size_t x = column * down; x < column * down + height; x++) {
                size_t at = image * strides[0] + channel * strides[1] + y * strides[2] + x * strides[3];
                result = fmaxf(result, from[at]);
            }
        }
        to[out] = result;
    }
}

Status cuLaunchKernel(Function name, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                      unsigned block_z, unsigned shared, void *stream, void **arguments, void **extra) {
    (void)grid_y, (void)grid_z, (void)block_y, (void)block_z, (void)shared, (void)extra;
    on_stream(stream);
    trace("launch", 0);
    for (size_t i = 0; i < sizeof unaries / sizeof *unaries; i++) {
        if (strcmp(name, unaries[i].name) != 0) continue;
        size_t count = ARGUMENT(size_t, 0), rank = ARGUMENT(size_t, 1);
        const size_t *layout = ARGUMENT(const size_t *, 2);
        const float *from = ARGUMENT(const float *, 3);
        float *to = ARGUMENT(float *, 4);
        for (size_t at = 0; at < count; at++) to[at] = unaries[i].compute(from[place(at, rank, layout, layout + rank)]);
        return 0;
    }
    for (size_t i = 0; i < sizeof binaries / sizeof *binaries; i++) {
        if (strcmp(name, binaries[i].name) != 0) continue;
        size_t count = ARGUMENT(size_t, 0), rank = ARGUMENT(size_t, 1);
        const size_t *layout = ARGUMENT(const size_t *, 2);
        const float *left = ARGUMENT(const float *, 3), *right = ARGUMENT(const float *, 4);
        float *to = ARGUMENT(float *, 5);
        for (size_t at = 0; at < count; at++) {
            float x = left[place(at, rank, layout, layout + rank)], y = right[place(at, rank, layout, layout + 2 * rank)];
            to[at] = binaries[i].compute(x, y);
        }
        return 0;
    }
    if (strcmp(name, "affine_f32") == 0) {
        size_t count = ARGUMENT(size_t, 0), rank = ARGUMENT(size_t, 1);
        const size_t *layout = ARGUMENT(const size_t *, 2);
        const float *from = ARGUMENT(const float *, 3);
        float *to = ARGUMENT(float *, 4), scale = ARGUMENT(float, 5), shift = ARGUMENT(float, 6);
        for (size_t at = 0; at < count; at++) {
            float x = from != NULL ? from[place(at, rank, layout, layout + rank)] : to[at];
            to[at] = x * scale + shift;
        }
    } else if (strcmp(name, "cast_u8_f32") == 0) {
        size_t count = ARGUMENT(size_t, 0), rank = ARGUMENT(size_t, 1);
        const size_t *layout = ARGUMENT(const size_t *, 2);
        const uint8_t *from = ARGUMENT(const uint8_t *, 3);
        float *to = ARGUMENT(float *, 4);
        for (size_t at = 0; at < count; at++) to[at] = from[place(at, rank, layout, layout + rank)];
    } else if (strcmp(name, "copy2d_f32") == 0) {
        const float *from = ARGUMENT(const float *, 0);
        float *to = ARGUMENT(float *, 1);
        uint32_t rows = ARGUMENT(uint32_t, 2), columns = ARGUMENT(uint32_t, 3);
        uint32_t from_stride = ARGUMENT(uint32_t, 4), to_stride = ARGUMENT(uint32_t, 5);
        for (size_t row = 0; row < rows; row++) {
            memcpy(to + row * to_stride, from + row * from_stride, columns * sizeof *to);
        }
    } else if (strcmp(name, "const_set_f32") == 0) {
        size_t count = ARGUMENT(size_t, 0), rank = ARGUMENT(size_t, 1);
        const size_t *layout = ARGUMENT(const size_t *, 2);
        float value = ARGUMENT(float, 3), *to = ARGUMENT(float *, 4);
        for (size_t at = 0; at < count; at++) to[place(at, rank, layout, layout + rank)] = value;
    } else if (strcmp(name, "fill_f32") == 0) {
        float *to = ARGUMENT(float *, 0), value = ARGUMENT(float, 1);
        for (size_t at = 0; at < ARGUMENT(size_t, 2); at++) to[at] = value;
    } else if (strcmp(name, "fast_max_f32") == 0) {
        reduce(ARGUMENT(size_t, 0) / ARGUMENT(size_t, 1), arguments, true);
    } else if (strcmp(name, "fast_sum_f32") == 0) {
        reduce(ARGUMENT(size_t, 0) / ARGUMENT(size_t, 1), arguments, false);
    } else if (strcmp(name, "fast_sum_small_f32") == 0) {
        reduce(ARGUMENT(size_t, 0), arguments, false);
    } else if (strcmp(name, "is_u32_f32") == 0) {
        select_by_index(arguments);
    } else if (strcmp(name, "im2col_f32") == 0) {
        unfold(arguments);
    } else if (strcmp(name, "max_pool2d_f32") == 0) {
        pool(arguments, (size_t)grid_x * block_x);
    } else {
        give_up("kernel", name);
    }
    return 0;
}

// ── cuBLAS and cuRAND ───────────────────────────────────────────────────────────────────────────────────────────────────────

Status cublasCreate_v2(void **handle) { *handle = &the_rest; return 0; }
Status cublasDestroy_v2(void *handle) { (void)handle; return 0; }
Status cublasSetStream_v2(void *handle, void *stream) { (void)handle; on_stream(stream); return 0; }

// C = alpha op(A) op(B) + beta C, by columns, for each of a batch.
Status cublasGemmStridedBatchedEx(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const float *alpha,
                                  const float *a, int a_type, int a_leading, long long a_stride, const float *b, int b_type,
                                  int b_leading, long long b_stride, const float *beta, float *c, int c_type, int c_leading,
                                  long long c_stride, int batch, int compute, int algorithm) {
    (void)handle, (void)algorithm;
    // 0 are 32-bit floats. 68 multiplies them as they are, 77 as TF32, which answers less exactly.
    if (a_type != 0 || b_type != 0 || c_type != 0 || compute != 68) give_up("product", "of other numbers than 32-bit floats");
    arrive();
    trace("product", 0);
    for (int each = 0; each < batch; each++, a += a_stride, b += b_stride, c += c_stride) {
        for (int j = 0; j < n; j++) {
            float *out = c + (size_t)j * c_leading;
            for (int i = 0; i < m; i++) out[i] = *beta == 0 ? 0 : *beta * out[i];
            for (int l = 0; l < k; l++) {
                float factor = *alpha * (transpose_b ? b[(size_t)l * b_leading + j] : b[(size_t)j * b_leading + l]);
                if (transpose_a) {
                    for (int i = 0; i < m; i++) out[i] += factor * a[(size_t)i * a_leading + l];
                } else {
                    for (int i = 0; i < m; i++) out[i] += factor * a[(size_t)l * a_leading + i];
                }
            }
        }
    }
    return 0;
}
// What is only linked to: numbers at random, and kernels for quantised networks, which the runtime library registers.
Status cublasDgemmStridedBatched(void) { give_up("product", "of 64-bit floats"); return 1; }

Status curandCreateGenerator(void **generator, int kind) { (void)kind; *generator = &the_rest; return 0; }
Status curandDestroyGenerator(void *generator) { (void)generator; return 0; }
Status curandSetStream(void *generator, void *stream) { (void)generator, (void)stream; return 0; }
Status curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) { (void)generator, (void)seed; return 0; }
Status curandGenerateUniform(void) { give_up("numbers", "at random"); return 1; }
Status curandGenerateUniformDouble(void) { return curandGenerateUniform(); }
int __cudaRegisterFatBinary(void) { return 0; }
int __cudaRegisterFatBinaryEnd(void) { return 0; }
int __cudaUnregisterFatBinary(void) { return 0; }
int __cudaRegisterFunction(void) { return 0; }
int __cudaRegisterVar(void) { return 0; }
int __cudaGetKernel(void) { return 0; }
int __cudaLaunchKernel_ptsz(void) { return 0; }
int __cudaPopCallConfiguration(void) { return 0; }
int __cudaPushCallConfiguration(void) { return 0; }
int cudaFuncSetAttribute(void) { return 0; }
int cudaGetDevice(void) { return 0; }
