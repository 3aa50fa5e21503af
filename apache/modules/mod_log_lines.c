/* Lines of the logs are written together while many come, and each by itself while few do.
 *
 * To write a line costs the kernel more than Apache needs to make it, and all threads that write to the same file wait for
 * each other. Where the last line was written a moment ago, the next one waits for others: GATHER_MS at most, or until
 * they are as long as a pipe takes at once, so that lines of several children never mix. A child that ends writes what
 * it has. One that is killed loses the lines of its last GATHER_MS, if it had many. (BufferedLogs keeps lines until there
 * are 4 KiB of them, however long that takes.)
 *
 * Besides, %Z in a format is the status of an answer, or 499 where its caller went away before it was complete.
 *
 * docs/decisions/0133-log-lines.md tells why, and what else was tried.
 */

/* First: the others need it. */
#include "httpd.h"

#include "apr_optional.h"
#include "apr_portable.h"
#include "apr_strings.h"
#include "http_config.h"
#include "http_log.h"
#include "mod_log_config.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

module AP_MODULE_DECLARE_DATA log_lines_module;
APLOG_USE_MODULE(log_lines);

/* Its test builds one that gathers for longer than it runs. */
#ifndef GATHER_MS
#define GATHER_MS 10
#endif
/* Beyond it, a pipe may take a part of what is written, and another writer's between. */
#define TOGETHER_BYTES PIPE_BUF
/* As mod_arrivals.c notes it. */
#define NOTE_GONE "cask-gone"
#define STATUS_GONE "499"

/* One log of one child. */
typedef struct lines_t {
    struct lines_t *next;
    apr_file_t *file;
    pthread_mutex_t lock;
    apr_time_t written_at;
    apr_size_t size;
    char waiting[TOGETHER_BYTES];
} lines_t;

static lines_t *logs;
static ap_log_writer_init *open_log;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t some_wait = PTHREAD_COND_INITIALIZER;
static int do_some_wait;
static int has_thread;

/* ── To write ───────────────────────────────────────────────────────────────────────────────────────────────────── */

/* With the lock of these lines. A failure has no place to be told: it is the log that fails. */
static void write_waiting(lines_t *lines)
{
    if (lines->size)
        apr_file_write_full(lines->file, lines->waiting, lines->size, NULL);
    lines->size = 0;
    lines->written_at = apr_time_now();
}

static apr_status_t write_all(void *unused)
{
    lines_t *lines;
    for (lines = logs; lines; lines = lines->next) {
        pthread_mutex_lock(&lines->lock);
        if (lines->size)
            write_waiting(lines);
        pthread_mutex_unlock(&lines->lock);
    }
    return APR_SUCCESS;
}

/* One thread of a child, for all of its logs. */
static void *write_in_time(void *unused)
{
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!do_some_wait)
            pthread_cond_wait(&some_wait, &lock);
        pthread_mutex_unlock(&lock);
        apr_sleep(apr_time_from_msec(GATHER_MS));
        pthread_mutex_lock(&lock);
        do_some_wait = 0;
        pthread_mutex_unlock(&lock);
        write_all(NULL);
        pthread_mutex_lock(&lock);
    }
    return NULL;
}

/* False where nobody would write them in time. */
static int is_written_later(void)
{
    pthread_t thread;
    sigset_t all, before;
    pthread_mutex_lock(&lock);
    if (!has_thread) {
        /* Signals are for the threads that Apache has for them. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        has_thread = pthread_create(&thread, NULL, write_in_time, NULL) == 0;
        if (has_thread)
            pthread_detach(thread);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (has_thread && !do_some_wait) {
        do_some_wait = 1;
        pthread_cond_signal(&some_wait);
    }
    pthread_mutex_unlock(&lock);
    return has_thread;
}

static apr_status_t write_line(request_rec *r, void *handle, const char **portions, int *lengths, int in_all,
                               apr_size_t size)
{
    lines_t *lines = handle;
    int n, waits;
    pthread_mutex_lock(&lines->lock);
    if (lines->size + size > sizeof lines->waiting)
        write_waiting(lines);
    /* Longer than all that are written together. */
    for (n = 0; n < in_all && size > sizeof lines->waiting; n++)
        apr_file_write_full(lines->file, portions[n], lengths[n], NULL);
    for (n = 0; n < in_all && size <= sizeof lines->waiting; n++) {
        memcpy(lines->waiting + lines->size, portions[n], lengths[n]);
        lines->size += lengths[n];
    }
    /* The clock may have been set back. */
    waits = apr_time_now() - lines->written_at < apr_time_from_msec(GATHER_MS) && apr_time_now() >= lines->written_at;
    if (!waits || (lines->size == size && !is_written_later()))
        write_waiting(lines);
    pthread_mutex_unlock(&lines->lock);
    return APR_SUCCESS;
}

/* ── To begin ───────────────────────────────────────────────────────────────────────────────────────────────────── */

static apr_status_t forget(void *unused)
{
    logs = NULL;
    return APR_SUCCESS;
}

/* mod_log_config opens it. */
static void *begin(apr_pool_t *p, server_rec *s, const char *name)
{
    lines_t *lines = apr_pcalloc(p, sizeof *lines);
    if ((lines->file = open_log(p, s, name)) == NULL)
        return NULL;
    pthread_mutex_init(&lines->lock, NULL);
    lines->next = logs;
    logs = lines;
    return lines;
}

static const char *status_of(request_rec *r, char *unused)
{
    if (apr_table_get(r->notes, NOTE_GONE))
        return STATUS_GONE;
    return r->status > 0 ? apr_itoa(r->pool, r->status) : "-";
}

/* After mod_log_config has set its own. */
static int take_over(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    APR_OPTIONAL_FN_TYPE(ap_log_set_writer_init) *set_init = APR_RETRIEVE_OPTIONAL_FN(ap_log_set_writer_init);
    APR_OPTIONAL_FN_TYPE(ap_log_set_writer) *set_writer = APR_RETRIEVE_OPTIONAL_FN(ap_log_set_writer);
    APR_OPTIONAL_FN_TYPE(ap_register_log_handler) *add = APR_RETRIEVE_OPTIONAL_FN(ap_register_log_handler);
    if (set_init == NULL || set_writer == NULL || add == NULL)
        return OK;
    open_log = set_init(begin);
    set_writer(write_line);
    add(pconf, "Z", status_of, 0);
    apr_pool_cleanup_register(pconf, NULL, forget, apr_pool_cleanup_null);
    return OK;
}

static void begin_child(apr_pool_t *pchild, server_rec *s)
{
    apr_pool_cleanup_register(pchild, NULL, write_all, apr_pool_cleanup_null);
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_pre_config(take_over, NULL, NULL, APR_HOOK_REALLY_LAST);
    ap_hook_child_init(begin_child, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA log_lines_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, AP_MODULE_FLAG_NONE};
