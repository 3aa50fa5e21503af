/* A file of a page that was answered is answered again from memory, in the same bytes.
 *
 * What Apache does for a small file costs three times as much as to receive the request and send the answer: rules,
 * rights, the file itself, a dozen headers, compression. Here the first answer goes that way, and its bytes are kept. A
 * request of the same line and of the same headers gets them, with a date and an id of its own, before any of it begins.
 * So nothing is decided here: what is not plainly the same request goes the whole way.
 *
 * Each child keeps for itself. A file that has changed is seen LOOK_MS later; nothing else that decides an answer changes
 * while Apache runs. docs/decisions/0132-kept-files.md tells why, and what else was tried.
 */

/* First: the others need it. */
#include "httpd.h"

#include "ap_mpm.h"
#include "apr_atomic.h"
#include "apr_lib.h"
#include "apr_strings.h"
#include "http_config.h"
#include "http_core.h"
#include "http_protocol.h"
#include "http_request.h"
#include "util_time.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

module AP_MODULE_DECLARE_DATA kept_files_module;

/* Head and body of one answer; of all; and how many. Where another one would be too many, all are thrown away: they come
 * back with the next requests, and nobody can fill the room with what nobody else asks for. */
#define MOST_BYTES 262144
#define MOST_BYTES_IN_ALL 8388608
#define MOST_FILES 1024
#define BUCKETS 512
/* More than a head of ours has. */
#define HEAD_BYTES 8192
/* A small body is sent in one piece with its head. */
#define SMALL_BYTES 4096
#define MOST_LINE_BYTES 256
#define MOST_KEY_BYTES 512
#define MOST_PREFIXES 4
/* Whether a file is another one is looked at so often. */
#define LOOK_MS 10
/* One that was changed a moment ago may change again within the same tick of its clock. */
#define SETTLED_SECONDS 2
#define LEARN_FILTER "KEPT_FILES_LEARN"
#define ID_HEADER "X-Request-Id"
/* In a key, of what the caller has not sent: no value of a header begins so. */
#define NONE "\t"

/* One answer. */
typedef struct kept_t {
    struct kept_t *next;       /* with the same hash */
    apr_uint32_t users;        /* requests that send it; and the table, while it is there */
    apr_uint32_t hash;
    const server_rec *server;
    char *key;
    char *path;
    struct stat file;
    apr_time_t looked_at;
    int status;
    char *data;                /* as it was sent */
    apr_size_t size, head;     /* bytes: in all, of the head */
    apr_size_t date, id;       /* where their values begin, */
    apr_size_t id_size;        /* and how long that of the id was */
} kept_t;

/* What decides the answer to a request, and two of its parts. */
typedef struct {
    const char *key;
    const char *etag, *since;
} asked_t;

/* An answer on its way, which may be kept. */
typedef struct {
    const asked_t *asked;
    char *data;
    apr_size_t size, most;
} learnt_t;

typedef struct {
    int is_on;
} folder_t;

static const char *prefixes[MOST_PREFIXES];
static int prefixes_in_all;
static kept_t *table[BUCKETS];
static apr_size_t bytes_in_all;
static int files_in_all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ── Which requests are the same ────────────────────────────────────────────────────────────────────────────────── */

/* No answer of a file depends on these. All others but those of asked_by() are left to Apache. */
static const char *const without_effect[] = {
    "Accept", "Accept-Language", "Cache-Control", "Cookie", "DNT", "Host", "Pragma", "Priority", "Referer",
    "Upgrade-Insecure-Requests", "User-Agent", ID_HEADER, NULL};

/* What browsers and clients say. Any other is left to Apache: each would be an answer of its own to keep. */
static const char *const codings[] = {
    "gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate", "gzip", "identity", "deflate, gzip, br, zstd",
    "deflate, gzip", NULL};

static int is_one_of(const char *const *names, const char *name)
{
    for (; *names; names++)
        if ((**names | 32) == (*name | 32) && strcasecmp(*names, name) == 0)
            return 1;
    return 0;
}

/* GET or HEAD of a plain address below one of ours, in the usual version: each file has one such line for each method. */
static int is_line_of_file(const char *line)
{
    const char *at = line;
    int n;
    if (strncmp(at, "GET ", 4) == 0)
        at += 4;
    else if (strncmp(at, "HEAD ", 5) == 0)
        at += 5;
    else
        return 0;
    for (n = 0; n < prefixes_in_all && strncmp(at, prefixes[n], strlen(prefixes[n])); n++)
        ;
    if (n == prefixes_in_all)
        return 0;
    for (; apr_isalnum(*at) || strchr("._-/", *at); at++)
        if (*at == '\0' || (*at == '/' && (at[1] == '/' || at[1] == '.')))
            return 0;
    return strcmp(at, " HTTP/1.1") == 0 && at - line < MOST_LINE_BYTES;
}

/* NULL: Apache is to answer. */
static asked_t *asked_by(request_rec *r)
{
    const apr_array_header_t *headers = apr_table_elts(r->headers_in);
    const char *coding = NONE, *connection = NONE;
    asked_t *asked = apr_palloc(r->pool, sizeof *asked);
    int n;
    asked->etag = asked->since = NONE;
    for (n = 0; n < headers->nelts; n++) {
        const apr_table_entry_t *header = &APR_ARRAY_IDX(headers, n, apr_table_entry_t);
        if (strcasecmp(header->key, "Accept-Encoding") == 0 && is_one_of(codings, header->val))
            coding = header->val;
        else if (strcasecmp(header->key, "Connection") == 0 && strcasecmp(header->val, "keep-alive") == 0)
            connection = "kept";
        else if (strcasecmp(header->key, "If-None-Match") == 0)
            asked->etag = header->val;
        else if (strcasecmp(header->key, "If-Modified-Since") == 0)
            asked->since = header->val;
        else if (!is_one_of(without_effect, header->key) && strncasecmp(header->key, "Sec-", 4))
            return NULL;
    }
    asked->key = apr_pstrcat(r->pool, r->the_request, "\n", coding, "\n", connection, "\n", asked->etag, "\n",
                             asked->since, NULL);
    return strlen(asked->key) <= MOST_KEY_BYTES ? asked : NULL;
}

static int is_same_header(request_rec *r, const char *name, const char *asked)
{
    const char *said = apr_table_get(r->headers_out, name);
    return strcmp(asked, NONE) == 0 || (said && strcmp(asked, said) == 0);
}

/* Whether this is the one answer to it that is kept: all of the file, or that the caller has it, where what it says of its
 * own is what we said. Others there are without number. */
static int is_usual_answer(request_rec *r, const asked_t *asked)
{
    int is_conditional = strcmp(asked->etag, NONE) || strcmp(asked->since, NONE);
    return r->status == (is_conditional ? HTTP_NOT_MODIFIED : HTTP_OK) && is_same_header(r, "ETag", asked->etag) &&
           is_same_header(r, "Last-Modified", asked->since);
}

/* Whether the connection stays, and nothing is to be said of when it ends. */
static int stays(request_rec *r)
{
    int state;
    return r->server->keep_alive && r->server->keep_alive_max == 0 && r->connection->keepalive != AP_CONN_CLOSE &&
           !apr_table_get(r->subprocess_env, "nokeepalive") &&
           ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS && state != AP_MPMQ_STOPPING;
}

/* ── What is kept ───────────────────────────────────────────────────────────────────────────────────────────────── */

static apr_uint32_t hash_of(const char *key)
{
    apr_ssize_t size = APR_HASH_KEY_STRING;
    return apr_hashfunc_default(key, &size);
}

static apr_status_t leave(void *data)
{
    kept_t *kept = data;
    if (apr_atomic_dec32(&kept->users) == 0) {
        free(kept->key);
        free(kept->path);
        free(kept->data);
        free(kept);
    }
    return APR_SUCCESS;
}

/* With the lock. */
static void take_out(kept_t **place)
{
    kept_t *kept = *place;
    *place = kept->next;
    bytes_in_all -= kept->size;
    files_in_all--;
    leave(kept);
}

static kept_t **place_of(const char *key, apr_uint32_t hash, const server_rec *server)
{
    kept_t **place = &table[hash % BUCKETS];
    while (*place && ((*place)->hash != hash || (*place)->server != server || strcmp((*place)->key, key)))
        place = &(*place)->next;
    return place;
}

static int is_same_file(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino && one->st_size == other->st_size &&
           one->st_mode == other->st_mode && one->st_mtim.tv_sec == other->st_mtim.tv_sec &&
           one->st_mtim.tv_nsec == other->st_mtim.tv_nsec && one->st_ctim.tv_sec == other->st_ctim.tv_sec &&
           one->st_ctim.tv_nsec == other->st_ctim.tv_nsec;
}

/* The answer of this key, to be left when it is sent; NULL: there is none, or its file is another one by now. */
static kept_t *find(const char *key, const server_rec *server, apr_time_t now)
{
    apr_uint32_t hash = hash_of(key);
    kept_t *kept, **place;
    struct stat file;
    int is_old = 0;
    pthread_mutex_lock(&lock);
    kept = *place_of(key, hash, server);
    if (kept) {
        apr_atomic_inc32(&kept->users);
        /* Or the clock was set back. */
        is_old = now - kept->looked_at >= apr_time_from_msec(LOOK_MS) || now < kept->looked_at;
        if (is_old)
            kept->looked_at = now;
    }
    pthread_mutex_unlock(&lock);
    if (!is_old || (lstat(kept->path, &file) == 0 && is_same_file(&file, &kept->file)))
        return kept;
    pthread_mutex_lock(&lock);
    place = place_of(key, hash, server);
    if (*place == kept)
        take_out(place);
    pthread_mutex_unlock(&lock);
    leave(kept);
    return NULL;
}

static void take_all_out(void)
{
    int n;
    for (n = 0; n < BUCKETS; n++)
        while (table[n])
            take_out(&table[n]);
}

static void put(kept_t *kept)
{
    kept_t **place;
    pthread_mutex_lock(&lock);
    if (files_in_all >= MOST_FILES || bytes_in_all + kept->size > MOST_BYTES_IN_ALL)
        take_all_out();
    place = place_of(kept->key, kept->hash, kept->server);
    if (*place)
        take_out(place);
    kept->next = *place;
    *place = kept;
    bytes_in_all += kept->size;
    files_in_all++;
    pthread_mutex_unlock(&lock);
}

/* ── An answer from memory ──────────────────────────────────────────────────────────────────────────────────────── */

/* As request-id.conf has it: a caller's own, where it is harmless. */
static const char *id_of(request_rec *r)
{
    const char *id = apr_table_get(r->headers_in, ID_HEADER);
    size_t size = id ? strlen(id) : 0, n = 0;
    while (n < size && (apr_isalnum(id[n]) || strchr("@._-", id[n])))
        n++;
    return size >= 8 && size <= 64 && n == size ? id : apr_table_get(r->subprocess_env, "UNIQUE_ID");
}

static char *add(char *at, const char *data, apr_size_t size)
{
    memcpy(at, data, size);
    return at + size;
}

/* As much as goes without waiting, as the MPM does it once the thread has given the connection away. A thread that stays
 * for the next request (mod_arrivals.c) would else wait for it before this one is answered. */
static void write_now(conn_rec *c)
{
    ap_filter_t *last = c->output_filters;
    while (last->next)
        last = last->next;
    last->frec->filter_func.out_func(last, NULL);
}

static int send_kept(request_rec *r, const kept_t *kept, const char *id)
{
    conn_rec *c = r->connection;
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, c->bucket_alloc);
    apr_size_t id_size = strlen(id), body = kept->size - kept->head, after_id = kept->id + kept->id_size;
    apr_size_t together = body <= SMALL_BYTES ? body : 0;
    char date[APR_RFC822_DATE_LEN], *first = apr_palloc(r->pool, kept->head + id_size + together), *at = first;

    ap_recent_rfc822_date(date, r->request_time);
    at = add(at, kept->data, kept->date);
    at = add(at, date, APR_RFC822_DATE_LEN - 1);
    at = add(at, kept->data + kept->date + APR_RFC822_DATE_LEN - 1, kept->id - kept->date - (APR_RFC822_DATE_LEN - 1));
    at = add(at, id, id_size);
    at = add(at, kept->data + after_id, kept->head - after_id + together);
    /* Both are there until the request is, and that is until they have been sent. */
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_immortal_create(first, at - first, c->bucket_alloc));
    if (body > together)
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_immortal_create(kept->data + kept->head, body, c->bucket_alloc));
    /* For the log. */
    apr_table_setn(r->headers_out, ID_HEADER, id);
    r->handler = "kept-file";
    r->status = kept->status;
    r->bytes_sent = (apr_off_t)body;
    r->sent_bodyct = 1;
    r->eos_sent = 1;
    c->keepalive = AP_CONN_KEEPALIVE;
    c->keepalives++;
    if (ap_pass_brigade(c->output_filters, bb) == APR_SUCCESS)
        write_now(c);
    return OK;
}

/* Before Apache reads anything into the request but its head. */
static int answer(request_rec *r, int is_lookup)
{
    const char *id;
    asked_t *asked;
    kept_t *kept;
    if (is_lookup || prefixes_in_all == 0 || r->main || r->prev || r->connection->master || r->status != HTTP_OK ||
        r->the_request == NULL || !is_line_of_file(r->the_request) || !stays(r) || (asked = asked_by(r)) == NULL)
        return DECLINED;
    /* For who may learn the answer. */
    ap_set_module_config(r->request_config, &kept_files_module, asked);
    if ((id = id_of(r)) == NULL || (kept = find(asked->key, r->server, r->request_time)) == NULL)
        return DECLINED;
    apr_pool_cleanup_register(r->pool, kept, leave, apr_pool_cleanup_null);
    return send_kept(r, kept, id);
}

/* ── To keep an answer ──────────────────────────────────────────────────────────────────────────────────────────── */

/* Where the value of a header begins that is there once; 0: it is not. */
static apr_size_t value_of(const char *data, apr_size_t head, const char *line)
{
    const char *found = memmem(data, head, line, strlen(line));
    apr_size_t at = found ? found - data + strlen(line) : 0;
    return at && memmem(data + at, head - at, line, strlen(line)) == NULL ? at : 0;
}

/* Where its head ends, and what in it is different each time. False: it cannot be given again. */
static int is_read(kept_t *kept, const char *own_id)
{
    const char *end = memmem(kept->data, kept->size, CRLF CRLF, 4);
    apr_size_t size = own_id ? strlen(own_id) : 0;
    if (end == NULL || size == 0)
        return 0;
    kept->head = end - kept->data + 4;
    kept->date = value_of(kept->data, kept->head, CRLF "Date: ");
    kept->id = value_of(kept->data, kept->head, CRLF ID_HEADER ": ");
    kept->id_size = size;
    return kept->date && kept->date + APR_RFC822_DATE_LEN - 1 + 2 <= kept->id && kept->id + size + 4 <= kept->head &&
           memcmp(kept->data + kept->date + APR_RFC822_DATE_LEN - 1, CRLF, 2) == 0 &&
           memcmp(kept->data + kept->id, own_id, size) == 0 && memcmp(kept->data + kept->id + size, CRLF, 2) == 0 &&
           !value_of(kept->data, kept->head, CRLF "Connection: close");
}

/* Whether the file is still the one that was sent, and is not being written. */
static int is_settled(request_rec *r, struct stat *file)
{
    apr_time_t changed;
    if (lstat(r->filename, file) != 0 || !S_ISREG(file->st_mode))
        return 0;
    changed = apr_time_from_sec(file->st_ctim.tv_sec);
    return file->st_ino == r->finfo.inode && file->st_size == r->finfo.size &&
           apr_time_from_sec(file->st_mtim.tv_sec) + file->st_mtim.tv_nsec / 1000 == r->finfo.mtime &&
           apr_time_now() - changed > apr_time_from_sec(SETTLED_SECONDS);
}

/* All of the answer is known. */
static void keep(request_rec *r, const learnt_t *learnt)
{
    kept_t *kept;
    if (r->connection->aborted || !is_usual_answer(r, learnt->asked) || (kept = calloc(1, sizeof *kept)) == NULL)
        return;
    kept->users = 1;
    kept->hash = hash_of(learnt->asked->key);
    kept->server = r->server;
    kept->status = r->status;
    kept->size = learnt->size;
    kept->looked_at = r->request_time;
    kept->key = strdup(learnt->asked->key);
    kept->path = strdup(r->filename);
    kept->data = malloc(learnt->size);
    if (kept->data)
        memcpy(kept->data, learnt->data, learnt->size);
    if (kept->key && kept->path && kept->data && is_settled(r, &kept->file) &&
        is_read(kept, apr_table_get(r->headers_out, ID_HEADER)))
        put(kept);
    else
        leave(kept);
}

/* Below all filters of a request: what passes here is what is sent. */
static apr_status_t learn(ap_filter_t *f, apr_bucket_brigade *bb)
{
    learnt_t *learnt = f->ctx;
    apr_bucket *each;
    const char *data;
    apr_size_t size;
    for (each = APR_BRIGADE_FIRST(bb); each != APR_BRIGADE_SENTINEL(bb); each = APR_BUCKET_NEXT(each)) {
        if (APR_BUCKET_IS_EOS(each)) {
            keep(f->r, learnt);
            ap_remove_output_filter(f);
            break;
        }
        if (APR_BUCKET_IS_METADATA(each))
            continue;
        if (apr_bucket_read(each, &data, &size, APR_BLOCK_READ) != APR_SUCCESS || size > learnt->most - learnt->size) {
            ap_remove_output_filter(f);
            break;
        }
        memcpy(learnt->data + learnt->size, data, size);
        learnt->size += size;
    }
    return ap_pass_brigade(f->next, bb);
}

/* The file is found, and access to it was checked already. */
static int may_learn(request_rec *r)
{
    const asked_t *asked = ap_get_module_config(r->request_config, &kept_files_module);
    const folder_t *folder = ap_get_module_config(r->per_dir_config, &kept_files_module);
    learnt_t *learnt;
    if (asked == NULL || !folder->is_on || r->main || r->prev || r->finfo.filetype != APR_REG ||
        (r->path_info && *r->path_info) || r->finfo.size > MOST_BYTES - HEAD_BYTES)
        return DECLINED;
    learnt = apr_pcalloc(r->pool, sizeof *learnt);
    learnt->asked = asked;
    learnt->most = (apr_size_t)r->finfo.size + HEAD_BYTES;
    learnt->data = apr_palloc(r->pool, learnt->most);
    ap_add_output_filter(LEARN_FILTER, learnt, r, r->connection);
    return DECLINED;
}

/* ── Directives ─────────────────────────────────────────────────────────────────────────────────────────────────── */

static const char *add_prefix(cmd_parms *cmd, void *unused, const char *prefix)
{
    if (*prefix != '/' || prefix[strlen(prefix) - 1] != '/')
        return apr_pstrcat(cmd->pool, "KeptFilesBelow needs an address such as /static/, found ", prefix, NULL);
    if (prefixes_in_all == MOST_PREFIXES)
        return apr_psprintf(cmd->pool, "KeptFilesBelow takes %d addresses at most, found more", MOST_PREFIXES);
    prefixes[prefixes_in_all++] = prefix;
    return NULL;
}

static void *create_folder(apr_pool_t *p, char *where)
{
    return apr_pcalloc(p, sizeof(folder_t));
}

static void *merge_folders(apr_pool_t *p, void *outer, void *inner)
{
    return ((folder_t *)inner)->is_on ? inner : outer;
}

static const char *set_on(cmd_parms *cmd, void *folder, int is_on)
{
    ((folder_t *)folder)->is_on = is_on;
    return NULL;
}

static const command_rec directives[] = {
    AP_INIT_ITERATE("KeptFilesBelow", add_prefix, NULL, RSRC_CONF, "addresses of files that may be kept"),
    AP_INIT_FLAG("KeptFiles", set_on, NULL, ACCESS_CONF, "whether answers of files of this folder are kept"),
    {NULL}};

static int forget(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    prefixes_in_all = 0;
    return OK;
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_pre_config(forget, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_quick_handler(answer, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_fixups(may_learn, NULL, NULL, APR_HOOK_REALLY_LAST);
    /* Below that which cuts an answer into chunks. */
    ap_register_output_filter(LEARN_FILTER, learn, NULL, AP_FTYPE_TRANSCODE + 1);
}

module AP_MODULE_DECLARE_DATA kept_files_module = {
    STANDARD20_MODULE_STUFF, create_folder, merge_folders, NULL, NULL, directives, register_hooks, AP_MODULE_FLAG_NONE};
