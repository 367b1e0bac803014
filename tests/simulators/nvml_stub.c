/* A stand-in for libnvidia-ml.so.1 that behaves as a described set of GPUs.
 *
 * NVML_STUB_CONFIG names a file of key=value lines (nvml_stub.py writes it). Without it the library says that it is
 * absent. The file is read again when it changes, looked at every `reload_ms`, so that a test can change a GPU mid-run.
 *
 * Power follows a waveform over CLOCK_MONOTONIC. As in a real sensor, a reading changes at multiples of `update_s` and
 * averages over a window that ends there; the energy counter holds the integral of the same waveform at multiples of
 * `energy_step_s`.
 */
#include "nvml_stub_gpus.h"

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4,
    DRIVER_NOT_LOADED = 9, LIBRARY_NOT_FOUND = 12, GPU_IS_LOST = 15, VERSION_MISMATCH = 18, ARGUMENT_VERSION = 25,
};
enum { TYPE_DOUBLE, TYPE_UINT, TYPE_ULONG, TYPE_ULONG_LONG, TYPE_LONG_LONG, TYPE_INT, TYPE_USHORT };
enum { SCOPE_GPU = 0, SCOPE_MODULE = 1, SCOPE_MEMORY = 2 };

static atomic_int open_count;
static atomic_ulong field_calls;

/* For a process that simulates time itself: what all GPUs say from now on, whatever the configuration describes. */
static struct { int ordered; double power_mw, energy_mj; } said;
void nvmlStubSay(double power_mw, double energy_mj)
{
    said.ordered = 1;
    said.power_mw = power_mw;
    said.energy_mj = energy_mj;
}

static int listed_return(const struct gpu *gpu, const char *what, int otherwise)
{
    for (int i = 0; i < gpu->returns_count; i++)
        if (!strcmp(gpu->returns[i].what, what))
            return gpu->returns[i].code;
    return otherwise;
}

/* What every reading call does first: finds the GPU and says whether this call works on it. */
static int enter(const uintptr_t *handle, const char *what, struct config **config, struct gpu **gpu)
{
    if (!open_count || !(*config = configuration(0)))
        return UNINITIALIZED;
    uintptr_t index = (uintptr_t)handle - 1;
    if (index >= (uintptr_t)(*config)->gpus)
        return INVALID_ARGUMENT;
    *gpu = &(*config)->gpu[index];
    if ((*gpu)->hang_s > 0) {
        struct timespec pause = { (time_t)(*gpu)->hang_s, (long)(1e9 * fmod((*gpu)->hang_s, 1)) };
        nanosleep(&pause, NULL);
    }
    if ((*gpu)->returns_count == 0)
        return SUCCESS;
    int all = listed_return(*gpu, "all", SUCCESS);
    return all ? all : listed_return(*gpu, what, SUCCESS);
}

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency_us;
    uint32_t type;
    int32_t status;
    union { double d; uint32_t ui; unsigned long ul; unsigned long long ull; long long sll; int32_t si; uint16_t us; } value;
} field_value;

static int fill_power(const struct config *config, const struct gpu *gpu, field_value *entry)
{
    double window_s = entry->field == 185 ? gpu->average_window_s : gpu->instant_window_s;
    double mw = said.ordered ? said.power_mw : power_mw(config, gpu, window_s);
    int otherwise = SUCCESS;
    if (entry->scope == SCOPE_MODULE) {
        otherwise = gpu->module_extra_w > 0 ? SUCCESS : NOT_SUPPORTED;
        mw += 1000 * gpu->module_extra_w;
    } else if (entry->scope == SCOPE_MEMORY) {
        otherwise = gpu->memory_fraction > 0 ? SUCCESS : NOT_SUPPORTED;
        mw *= gpu->memory_fraction;
    } else if (entry->scope != SCOPE_GPU) {
        return INVALID_ARGUMENT;
    }
    entry->type = (uint32_t)gpu->power_value_type;
    if (!isnan(gpu->power_override_mw)) {
        entry->type = TYPE_INT;
        mw = gpu->power_override_mw;
    }
    memset(&entry->value, 0xff, sizeof entry->value);
    switch (entry->type) {
    case TYPE_DOUBLE: entry->value.d = mw; break;
    case TYPE_UINT: entry->value.ui = (uint32_t)lround(mw); break;
    case TYPE_ULONG: entry->value.ul = (unsigned long)lround(mw); break;
    case TYPE_ULONG_LONG: entry->value.ull = (unsigned long long)llround(mw); break;
    case TYPE_LONG_LONG: entry->value.sll = llround(mw); break;
    case TYPE_INT: entry->value.si = (int32_t)lround(mw); break;
    case TYPE_USHORT: entry->value.us = (uint16_t)lround(mw); break;
    }
    char what[24];
    snprintf(what, sizeof what, "%u.%u", entry->field, entry->scope);
    return gpu->returns_count ? listed_return(gpu, what, otherwise) : otherwise;
}

static int fill_field(const struct config *config, const struct gpu *gpu, field_value *entry)
{
    char what[24];
    snprintf(what, sizeof what, "%u", entry->field);
    int listed = gpu->returns_count ? listed_return(gpu, what, SUCCESS) : SUCCESS;
    if (listed)
        return listed;
    if (entry->field == 185 || entry->field == 186)
        return fill_power(config, gpu, entry);
    if (entry->field == 82) {
        entry->type = TYPE_UINT;
        entry->value.ui = (uint32_t)gpu->memory_temperature_c;
        return SUCCESS;
    }
    double slowdown = entry->field - gpu->first_slowdown_field;
    int in_slowdowns = slowdown >= 0 && slowdown < 3;
    if ((entry->field >= 74 && entry->field <= 81) || in_slowdowns) {
        entry->type = TYPE_ULONG_LONG;
        entry->value.ull = (unsigned long long)llround(1e9 * gpu->throttled_fraction * now_s(config));
        return SUCCESS;
    }
    return INVALID_ARGUMENT;
}

int nvmlDeviceGetFieldValues(void *handle, int count, field_value *values)
{
    struct config *config;
    struct gpu *gpu;
    field_calls++;
    int result = enter(handle, "fields", &config, &gpu);
    for (int i = 0; !result && i < count; i++)
        values[i].status = fill_field(config, gpu, &values[i]);
    return result;
}

/* A probe of the simulator itself: how many calls of nvmlDeviceGetFieldValues there were. */
unsigned long nvmlStubFieldCalls(void) { return field_calls; }

#define READ(function, what, out_type, expression)                      \
    int function(void *handle, out_type *out)                           \
    {                                                                   \
        struct config *config;                                          \
        struct gpu *gpu;                                                \
        int result = enter(handle, what, &config, &gpu);                \
        if (!result)                                                    \
            *out = (out_type)(expression);                              \
        return result;                                                  \
    }

static long usage_mw(const struct config *config, const struct gpu *gpu)
{
    if (said.ordered)
        return lround(said.power_mw);
    return isnan(gpu->power_override_mw) ? lround(power_mw(config, gpu, gpu->average_window_s))
                                         : (int32_t)gpu->power_override_mw;
}

static long long counted_mj(const struct config *config, const struct gpu *gpu)
{
    if (said.ordered)
        return llround(said.energy_mj);
    double joules = energy_j(gpu, last_multiple(now_s(config), gpu->energy_step_s));
    return llround(1000 * gpu->energy_gain * joules + gpu->energy_offset_mj);
}

READ(nvmlDeviceGetPowerUsage, "power", unsigned, usage_mw(config, gpu))
READ(nvmlDeviceGetTotalEnergyConsumption, "energy", unsigned long long, counted_mj(config, gpu))
READ(nvmlDeviceGetEnforcedPowerLimit, "limit", unsigned, gpu->limit_mw)
READ(nvmlDeviceGetFanSpeed, "fan", unsigned, gpu->fan)
READ(nvmlDeviceGetPerformanceState, "performance_state", unsigned, gpu->performance_state)
READ(nvmlDeviceGetCurrentClocksEventReasons, "event_reasons", unsigned long long, gpu->clocks_event_reasons)
READ(nvmlDeviceGetCurrentClocksThrottleReasons, "throttle_reasons", unsigned long long, gpu->clocks_event_reasons)
READ(nvmlDeviceGetArchitecture, "architecture", unsigned, gpu->architecture)
READ(nvmlDeviceGetPersistenceMode, "persistence", unsigned, gpu->persistence)

struct pair { unsigned first, second; };
int nvmlDeviceGetUtilizationRates(void *handle, struct pair *out)
{
    struct config *config;
    struct gpu *gpu;
    int result = enter(handle, "utilization", &config, &gpu);
    if (!result)
        *out = (struct pair){ (unsigned)gpu->utilization, (unsigned)gpu->memory_utilization };
    return result;
}

struct memory { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *out)
{
    struct config *config;
    struct gpu *gpu;
    int result = enter(handle, "memory", &config, &gpu);
    if (!result)
        *out = (struct memory){ 80ULL << 30, 60ULL << 30, 20ULL << 30 };
    return result;
}

#define RUNNING(function)                                               \
    int function(void *handle, unsigned *count, void *out)              \
    {                                                                   \
        struct config *config;                                          \
        struct gpu *gpu;                                                \
        (void)out;                                                      \
        *count = 0;                                                     \
        return enter(handle, "processes", &config, &gpu);               \
    }

RUNNING(nvmlDeviceGetComputeRunningProcesses_v3)
RUNNING(nvmlDeviceGetGraphicsRunningProcesses_v3)

int nvmlDeviceGetComputeMode(void *handle, unsigned *out)
{
    struct config *config;
    struct gpu *gpu;
    int result = enter(handle, "compute_mode", &config, &gpu);
    if (!result)
        *out = 0; /* NVML_COMPUTEMODE_DEFAULT */
    return result;
}

#define READ_TWO(function, what, one, two)                              \
    int function(void *handle, unsigned *first, unsigned *second)       \
    {                                                                   \
        struct config *config;                                          \
        struct gpu *gpu;                                                \
        int result = enter(handle, what, &config, &gpu);                \
        if (!result) {                                                  \
            *first = (unsigned)(one);                                   \
            *second = (unsigned)(two);                                  \
        }                                                               \
        return result;                                                  \
    }

READ_TWO(nvmlDeviceGetCudaComputeCapability, "capability", gpu->capability_major, gpu->capability_minor)
READ_TWO(nvmlDeviceGetMigMode, "mig", gpu->mig, gpu->mig)

int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *out)
{
    struct config *config;
    struct gpu *gpu;
    int result = sensor ? INVALID_ARGUMENT : enter(handle, "temperature", &config, &gpu);
    if (!result)
        *out = (unsigned)gpu->temperature_c;
    return result;
}

struct temperature { unsigned version, sensor; int celsius; };
int nvmlDeviceGetTemperatureV(void *handle, struct temperature *out)
{
    struct config *config;
    struct gpu *gpu;
    if (out->version != (sizeof *out | 1u << 24))
        return ARGUMENT_VERSION;
    int result = out->sensor ? INVALID_ARGUMENT : enter(handle, "temperature_v", &config, &gpu);
    if (!result)
        out->celsius = (int)gpu->temperature_c;
    return result;
}

int nvmlDeviceGetClockInfo(void *handle, unsigned type, unsigned *out)
{
    struct config *config;
    struct gpu *gpu;
    int result = enter(handle, type == 1 ? "sm_clock" : "memory_clock", &config, &gpu);
    if (!result)
        *out = (unsigned)(type == 1 ? gpu->sm_mhz : gpu->memory_mhz);
    return result;
}

#define READ_TEXT(function, what, member)                               \
    int function(void *handle, char *out, unsigned size)                \
    {                                                                   \
        struct config *config;                                          \
        struct gpu *gpu;                                                \
        int result = enter(handle, what, &config, &gpu);                \
        if (!result)                                                    \
            snprintf(out, size, "%s", gpu->member);                     \
        return result;                                                  \
    }

READ_TEXT(nvmlDeviceGetName, "name", name)
READ_TEXT(nvmlDeviceGetUUID, "uuid", uuid)

int nvmlDeviceGetCount_v2(unsigned *count)
{
    struct config *config = configuration(0);
    if (!open_count || !config)
        return UNINITIALIZED;
    *count = (unsigned)config->gpus;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    struct config *config;
    struct gpu *gpu;
    *handle = (void *)((uintptr_t)index + 1);
    return enter(*handle, "handle", &config, &gpu);
}

int nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    struct config *config = configuration(0);
    if (!open_count || !config)
        return UNINITIALIZED;
    snprintf(out, size, "%s", config->driver_version);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    struct config *config = configuration(1);
    if (!config)
        return LIBRARY_NOT_FOUND;
    if ((int)config->init_return)
        return (int)config->init_return;
    open_count++;
    return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void)
{
    if (!open_count)
        return UNINITIALIZED;
    open_count--;
    return SUCCESS;
}

const char *nvmlErrorString(int code)
{
    switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case VERSION_MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}
