/* An answer that broke off must not look whole to its caller.
 *
 * mod_wsgi ends an answer in order however its process ended it: after an exception within a stream, when the process was
 * killed, or when it was silent for too long. Then the caller of a stream takes half of it for all, and where a length
 * was announced, the caller waits for the rest on a connection that stays open for the next answer.
 *
 * So bytes are counted where a length is announced. Where none is, the app announces with Cask-Ends-With by which bytes it
 * will end (app/web/whole_answers.py); they do not reach the caller. If anything is
 * missing, the answer ends as that of a broken backend does in mod_proxy: without its last chunk (RFC 9112, section
 * 8), with RST_STREAM in HTTP/2, and with the connection. An answer of which nothing was sent yet becomes a 502.
 */

#include "apr_strings.h"
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "util_filter.h"

#include <string.h>

module AP_MODULE_DECLARE_DATA whole_answers_module;
APLOG_USE_MODULE(whole_answers);

/* How the names of mod_wsgi's handlers begin; ops.conf names its own. */
#define WSGI "wsgi-"
#define HEADER "Cask-Ends-With"
#define MOST_LENGTH 128
/* Text never holds it, so nothing of text has to wait for what follows. */
#define FIRST '\0'

typedef struct {
    int is_begun;
    /* The bytes of the end, FIRST before them; NULL where a length was announced. */
    char *end;
    apr_size_t end_length;
    /* So many bytes of the end have been seen, and not passed on. */
    apr_size_t held;
    apr_off_t length, sent;
} answer_t;

static ap_filter_rec_t *filter;

static const char *taken(request_rec *r, apr_table_t *headers)
{
    const char *value = apr_table_get(headers, HEADER);
    /* The table keeps its keys apart from their values. */
    if (value)
        value = apr_pstrdup(r->pool, value);
    apr_table_unset(headers, HEADER);
    return value;
}

/* What the answer's headers promise. False where it is nothing that could be missed. */
static int begins(request_rec *r, answer_t *answer)
{
    const char *end = taken(r, r->headers_out), *said = apr_table_get(r->headers_out, "Content-Length");
    char *rest;

    if (end == NULL)
        end = taken(r, r->err_headers_out);
    if (r->header_only || AP_STATUS_IS_HEADER_ONLY(r->status))
        return 0;
    if (end && *end && strlen(end) <= MOST_LENGTH) {
        /* Of somebody who has counted the end too. */
        apr_table_unset(r->headers_out, "Content-Length");
        answer->end = apr_pstrcat(r->pool, "?", end, NULL);
        answer->end_length = strlen(answer->end);
        answer->end[0] = FIRST;
        return 1;
    }
    return said && apr_strtoff(&answer->length, said, &rest, 10) == APR_SUCCESS && *rest == '\0' && answer->length > 0;
}

/* How many bytes of the end the held ones and these have reached. */
static apr_size_t reached(const answer_t *answer, const char *data, apr_size_t length)
{
    apr_size_t all = answer->held + length, most = all < answer->end_length ? all : answer->end_length, n;
    for (n = most; n > 0; n--) {
        /* The last n of what was held and came. */
        apr_size_t of_held = n > length ? n - length : 0, of_data = n - of_held;
        if (memcmp(answer->end + answer->held - of_held, answer->end, of_held) == 0 &&
            memcmp(data + length - of_data, answer->end + of_held, of_data) == 0)
            return n;
    }
    return 0;
}

/* Keeps back what may be the end, and passes on what was kept back and is not. The bucket that comes after. */
static apr_bucket *hold_back(answer_t *answer, apr_bucket *bucket, const char *data, apr_size_t length)
{
    apr_size_t before = answer->held, now = reached(answer, data, length);
    apr_size_t of_held = before + length - now < before ? before + length - now : before;
    apr_size_t of_data = before + length - now - of_held;
    apr_bucket *next;

    if (of_held > 0)
        APR_BUCKET_INSERT_BEFORE(bucket, apr_bucket_heap_create(answer->end, of_held, NULL, bucket->list));
    if (of_data > 0 && of_data < length && apr_bucket_split(bucket, of_data) != APR_SUCCESS)
        of_data = length;
    next = APR_BUCKET_NEXT(bucket);
    if (of_data == 0)
        apr_bucket_delete(bucket);
    else if (of_data < length) {
        apr_bucket *kept = next;
        next = APR_BUCKET_NEXT(kept);
        apr_bucket_delete(kept);
    }
    answer->held = now;
    return next;
}

static int is_whole(const answer_t *answer)
{
    return answer->end ? answer->held == answer->end_length : answer->sent >= answer->length;
}

/* As ap_proxy_backend_broke() does. */
static void break_off(request_rec *r, answer_t *answer, apr_bucket *eos)
{
    apr_bucket_alloc_t *list = eos->list;
    if (answer->end)
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "The answer broke off: its process did not end it.");
    else
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      "The answer broke off: %" APR_OFF_T_FMT " of %" APR_OFF_T_FMT " bytes came from its process.",
                      answer->sent, answer->length);
    if (answer->held > 0)
        APR_BUCKET_INSERT_BEFORE(eos, apr_bucket_heap_create(answer->end, answer->held, NULL, list));
    APR_BUCKET_INSERT_BEFORE(eos, ap_bucket_error_create(HTTP_BAD_GATEWAY, NULL, r->pool, list));
    r->connection->keepalive = AP_CONN_CLOSE;
}

static apr_status_t pass_whole(ap_filter_t *f, apr_bucket_brigade *brigade)
{
    answer_t *answer = f->ctx;
    apr_bucket *bucket, *next;

    if (!answer->is_begun) {
        answer->is_begun = 1;
        if (!begins(f->r, answer)) {
            ap_remove_output_filter(f);
            return ap_pass_brigade(f->next, brigade);
        }
    }
    for (bucket = APR_BRIGADE_FIRST(brigade); bucket != APR_BRIGADE_SENTINEL(brigade); bucket = next) {
        next = APR_BUCKET_NEXT(bucket);
        if (APR_BUCKET_IS_EOS(bucket)) {
            if (!is_whole(answer))
                break_off(f->r, answer, bucket);
            ap_remove_output_filter(f);
            break;
        }
        if (!APR_BUCKET_IS_METADATA(bucket)) {
            const char *data;
            apr_size_t length;
            apr_status_t status = apr_bucket_read(bucket, &data, &length, APR_BLOCK_READ);
            if (status != APR_SUCCESS)
                return status;
            answer->sent += length;
            /* Reading may have put the rest behind it. */
            next = answer->end ? hold_back(answer, bucket, data, length) : APR_BUCKET_NEXT(bucket);
        }
    }
    return ap_pass_brigade(f->next, brigade);
}

static void watch(request_rec *r)
{
    /* What sends a file, or what another server sent, knows itself when it is whole. */
    if (r->handler && (strncmp(r->handler, WSGI, sizeof WSGI - 1) == 0 || strcmp(r->handler, "ops-handler") == 0))
        ap_add_output_filter_handle(filter, apr_pcalloc(r->pool, sizeof(answer_t)), r, r->connection);
}

static void register_hooks(apr_pool_t *p)
{
    /* Before what compresses: it changes the length. */
    filter = ap_register_output_filter("CASK_WHOLE_ANSWERS", pass_whole, NULL, AP_FTYPE_RESOURCE);
    ap_hook_insert_filter(watch, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA whole_answers_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, AP_MODULE_FLAG_NONE};
