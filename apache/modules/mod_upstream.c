/* The edge hands each request to the release that serves: whichever a link names at that moment.
 *
 * A deploy replaces the link by a rename. It is read when the request has arrived whole (mod_arrivals), just before
 * mod_proxy connects: an upload that began under the old release goes to the new one. Nothing is reloaded and nothing is
 * kept, so there is no moment at which a caller meets neither.
 *
 * The link points to no file; its text is <release>/<address>:<port>, such as 12/172.20.0.28:8000.
 */

/* First: the others need it. */
#include "httpd.h"

#include "apr_strings.h"
#include "http_config.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "mod_proxy.h"

#include <string.h>
#include <unistd.h>

module AP_MODULE_DECLARE_DATA upstream_module;
APLOG_USE_MODULE(upstream);

/* The link at this length or longer is none of ours. */
#define MOST_BYTES 256
/* For logs, and for the answer that names the release. */
#define NOTE "cask-release"

static const char *link_path;

/* All but what Apache says by itself: the words of a refusal. */
static int is_forwarded(request_rec *r)
{
    return link_path != NULL && r->prev == NULL && r->main == NULL && r->uri != NULL && r->uri[0] == '/';
}

/* The address as the caller wrote it, without a scheme and host in front: what it means, the release says. */
static const char *as_written(request_rec *r)
{
    const char *text = r->unparsed_uri, *path;
    if (text[0] == '/')
        return text;
    path = strstr(text, "://");
    path = path ? strpbrk(path + 3, "/?") : NULL;
    if (path == NULL)
        return "/";
    return *path == '?' ? apr_pstrcat(r->pool, "/", path, NULL) : path;
}

/* Apache takes HTTP/2.0 and 3.7 for 1.1 when they come in that form (RFC 9110, section 15.6.6); the release would see 1.1. */
static int is_of_no_version(request_rec *r)
{
    const char *version = r->the_request ? strrchr(r->the_request, ' ') : NULL;
    /* A stream of HTTP/2 has a connection of its own below that of its caller. */
    return r->connection->master == NULL && version != NULL && strncmp(version, " HTTP/", 6) == 0 &&
           strncmp(version, " HTTP/1.", 8) != 0;
}

/* Before Apache decodes the address: each of its decisions would be a second reading of it. */
static int take(request_rec *r)
{
    if (!is_forwarded(r))
        return DECLINED;
    if (is_of_no_version(r))
        return HTTP_VERSION_NOT_SUPPORTED;
    r->filename = apr_pstrcat(r->pool, "proxy:http://release", as_written(r), NULL);
    r->handler = "proxy-server";
    r->proxyreq = PROXYREQ_REVERSE;
    apr_table_setn(r->notes, "proxy-nocanon", "1");
    return OK;
}

/* Nothing on this machine's disk has such a name. */
static int stay_away_from_files(request_rec *r)
{
    return r->proxyreq == PROXYREQ_REVERSE && is_forwarded(r) ? OK : DECLINED;
}

/* The body is here; mod_proxy has not begun. */
static int choose(request_rec *r)
{
    char text[MOST_BYTES];
    char *address;
    ssize_t length;

    if (r->proxyreq != PROXYREQ_REVERSE || !is_forwarded(r))
        return DECLINED;
    length = readlink(link_path, text, sizeof text - 1);
    text[length < 0 ? 0 : length] = '\0';
    address = strchr(text, '/');
    if (address == NULL) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "no release serves: %s names none", link_path);
        return HTTP_SERVICE_UNAVAILABLE;
    }
    *address++ = '\0';
    apr_table_set(r->notes, NOTE, text);
    r->filename = apr_pstrcat(r->pool, "proxy:http://", address, as_written(r), NULL);
    return DECLINED;
}

static const char *set_link(cmd_parms *cmd, void *unused, const char *path)
{
    link_path = path;
    return NULL;
}

static const command_rec directives[] = {
    AP_INIT_TAKE1("UpstreamLink", set_link, NULL, RSRC_CONF, "its text is <release>/<address>:<port>"), {NULL}};

static int forget(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    link_path = NULL;
    return OK;
}

static void register_hooks(apr_pool_t *p)
{
    /* take_in of mod_arrivals is APR_HOOK_REALLY_FIRST, mod_proxy's handler is APR_HOOK_FIRST. */
    static const char *const before[] = {"mod_arrivals.c", NULL};
    static const char *const after[] = {"mod_proxy.c", NULL};

    ap_hook_pre_config(forget, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_pre_translate_name(take, NULL, after, APR_HOOK_FIRST);
    ap_hook_map_to_storage(stay_away_from_files, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_handler(choose, before, after, APR_HOOK_FIRST);
}

module AP_MODULE_DECLARE_DATA upstream_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, directives, register_hooks, AP_MODULE_FLAG_NONE};
