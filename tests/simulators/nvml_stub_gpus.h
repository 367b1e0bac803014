/* What the simulated GPUs are: the configuration file, read again when it changes, and the waveform of their power. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_GPUS = 64, MAX_RETURNS = 48 };

struct field_return { char what[24]; int code; };

struct gpu {
    char name[96], uuid[96], waveform[16];
    double architecture, capability_major, capability_minor, persistence, mig;
    double low_w, high_w, period_s, duty, step_at_s; /* the waveform */
    double update_s, average_window_s, instant_window_s;
    double energy_step_s, energy_offset_mj, energy_gain; /* gain: of the counter against the power */
    double module_extra_w, memory_fraction; /* 0: that scope is not supported */
    double power_override_mw;               /* not NaN: every power reading says this, as a signed integer */
    double power_value_type;                /* nvmlValueType_t of the power fields */
    double temperature_c, memory_temperature_c, sm_mhz, memory_mhz, utilization, memory_utilization, fan;
    double limit_mw, clocks_event_reasons, performance_state;
    double throttled_fraction; /* of the time, in every violation counter */
    double first_slowdown_field; /* the number of the first of three fields that NVIDIA renumbered */
    double hang_s;             /* every reading sleeps this long */
    int returns_count;
    struct field_return returns[MAX_RETURNS];
};

struct config {
    double gpus, init_return, reload_ms, now_s;
    char driver_version[80];
    struct gpu gpu[MAX_GPUS];
};

struct key { const char *name; size_t offset, text; /* bytes of a text, 0 for a number */ };
#define NUMBER(type, member) { #member, offsetof(struct type, member), 0 }
#define TEXT(type, member) { #member, offsetof(struct type, member), sizeof(((struct type *)0)->member) }
static const struct key config_keys[] = {
    NUMBER(config, gpus), NUMBER(config, init_return), NUMBER(config, reload_ms), NUMBER(config, now_s),
    TEXT(config, driver_version), { 0 },
};
static const struct key gpu_keys[] = {
    TEXT(gpu, name), TEXT(gpu, uuid), TEXT(gpu, waveform),
    NUMBER(gpu, architecture), NUMBER(gpu, capability_major), NUMBER(gpu, capability_minor),
    NUMBER(gpu, persistence), NUMBER(gpu, mig),
    NUMBER(gpu, low_w), NUMBER(gpu, high_w), NUMBER(gpu, period_s), NUMBER(gpu, duty), NUMBER(gpu, step_at_s),
    NUMBER(gpu, update_s), NUMBER(gpu, average_window_s), NUMBER(gpu, instant_window_s),
    NUMBER(gpu, energy_step_s), NUMBER(gpu, energy_offset_mj), NUMBER(gpu, energy_gain),
    NUMBER(gpu, module_extra_w), NUMBER(gpu, memory_fraction), NUMBER(gpu, power_override_mw),
    NUMBER(gpu, power_value_type),
    NUMBER(gpu, temperature_c), NUMBER(gpu, memory_temperature_c), NUMBER(gpu, sm_mhz), NUMBER(gpu, memory_mhz),
    NUMBER(gpu, utilization), NUMBER(gpu, memory_utilization), NUMBER(gpu, fan),
    NUMBER(gpu, limit_mw), NUMBER(gpu, clocks_event_reasons), NUMBER(gpu, performance_state),
    NUMBER(gpu, throttled_fraction), NUMBER(gpu, first_slowdown_field), NUMBER(gpu, hang_s), { 0 },
};

/* A configuration that was replaced stays allocated: a call in another thread may still read it. */
static struct config *_Atomic current;
static _Atomic double looked_at_s;
static struct timespec seen;
static pthread_mutex_t reload_lock = PTHREAD_MUTEX_INITIALIZER;

static double monotonic_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void assign(void *record, const struct key *keys, const char *name, const char *value)
{
    for (const struct key *key = keys; key->name; key++) {
        if (strcmp(key->name, name))
            continue;
        char *place = (char *)record + key->offset;
        if (key->text)
            snprintf(place, key->text, "%s", value);
        else
            *(double *)place = strtod(value, NULL);
        return;
    }
    fprintf(stderr, "nvml_stub: unknown key %s\n", name);
}

static void assign_gpu(struct gpu *gpu, const char *name, const char *value)
{
    if (strncmp(name, "return.", 7)) {
        assign(gpu, gpu_keys, name, value);
    } else if (gpu->returns_count < MAX_RETURNS) {
        struct field_return *entry = &gpu->returns[gpu->returns_count++];
        snprintf(entry->what, sizeof entry->what, "%s", name + 7);
        entry->code = atoi(value);
    }
}

static struct config *parse(FILE *file)
{
    struct config *config = calloc(1, sizeof *config);
    char line[512];
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, '=');
        if (!value)
            continue;
        *value++ = 0;
        value[strcspn(value, "\n")] = 0;
        int index, used = 0;
        if (sscanf(line, "gpu%d.%n", &index, &used) == 1 && used && index >= 0 && index < MAX_GPUS)
            assign_gpu(&config->gpu[index], line + used, value);
        else
            assign(config, config_keys, line, value);
    }
    return config;
}

/* NULL: there is no readable configuration. */
static struct config *configuration(int look_now)
{
    struct config *config = atomic_load(&current);
    double now = monotonic_s();
    if (config && !look_now && now - looked_at_s < 1e-3 * config->reload_ms)
        return config;
    const char *path = getenv("NVML_STUB_CONFIG");
    struct stat status;
    if (!path || stat(path, &status))
        return look_now ? NULL : config;
    pthread_mutex_lock(&reload_lock);
    looked_at_s = now;
    if (look_now || status.st_mtim.tv_sec != seen.tv_sec || status.st_mtim.tv_nsec != seen.tv_nsec) {
        FILE *file = fopen(path, "r");
        if (file) {
            atomic_store(&current, parse(file));
            fclose(file);
            seen = status.st_mtim;
        }
    }
    config = atomic_load(&current);
    pthread_mutex_unlock(&reload_lock);
    return config;
}

static double now_s(const struct config *config)
{
    return isnan(config->now_s) ? monotonic_s() : config->now_s;
}

/* Joules from instant 0 of CLOCK_MONOTONIC to t. */
static double energy_j(const struct gpu *gpu, double t)
{
    if (!strcmp(gpu->waveform, "square")) {
        double high_s = gpu->duty * gpu->period_s, whole = floor(t / gpu->period_s), rest = t - whole * gpu->period_s;
        double one = gpu->high_w * high_s + gpu->low_w * (gpu->period_s - high_s);
        return whole * one + gpu->high_w * fmin(rest, high_s) + gpu->low_w * fmax(0, rest - high_s);
    }
    if (!strcmp(gpu->waveform, "step"))
        return gpu->low_w * fmin(t, gpu->step_at_s) + gpu->high_w * fmax(0, t - gpu->step_at_s);
    return gpu->high_w * t;
}

static double last_multiple(double t, double step)
{
    return step > 0 ? floor(t / step + 1e-9) * step : t;
}

static double power_mw(const struct config *config, const struct gpu *gpu, double window_s)
{
    double end = last_multiple(now_s(config), gpu->update_s);
    double window = fmax(window_s, 1e-6);
    return 1000 * (energy_j(gpu, end) - energy_j(gpu, end - window)) / window;
}
