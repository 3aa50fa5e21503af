/* What proxies say of a caller, in the form that the others read: mod_remoteip, proxies.conf, mod_wsgi.
 *
 * In a chain of proxies each adds a value to its lists. mod_remoteip goes through X-Forwarded-For from the right, as
 * long as one of TRUSTED_PROXIES has written it; of the other lists this module keeps the value that stands as far from
 * the right, hence was written by the same proxy. Further to the left stands what anybody may have made up. A list that
 * is shorter was begun by a proxy nearer to us: then its first value. Who is not trusted is not believed a single value
 * either (proxies.conf).
 */

#include "apr_lib.h"
#include "apr_strings.h"
#include "httpd.h"
#include "http_config.h"
#include "http_protocol.h"

#include <stdlib.h>
#include <string.h>

module AP_MODULE_DECLARE_DATA forwarded_module;

#define FOR "X-Forwarded-For"
#define BEFORE "cask-forwarded-before"

static const char *const lists[] = {"X-Forwarded-Proto", "X-Forwarded-Prefix", NULL};

static int length_of(const char *list)
{
    int length = 0;
    for (; list; length++)
        if ((list = strchr(list, ',')) != NULL)
            list++;
    return length;
}

/* 203.0.113.9:4711 and [2001:db8::1]:4711, as gateways write it: mod_remoteip wants an address alone. */
static const char *without_port(apr_pool_t *pool, const char *text)
{
    char *bare = apr_pstrdup(pool, text), *end, *port;
    while (apr_isspace(*bare))
        bare++;
    end = *bare == '[' ? strchr(bare, ']') : strchr(bare, ':');
    if (end == NULL || (*end == ':' && strrchr(bare, ':') != end))
        return text;
    port = *end == ']' ? end + 1 : end;
    if (*port == ':')
        port += 1 + strspn(port + 1, "0123456789");
    while (apr_isspace(*port))
        port++;
    if (*port)
        return text;
    *end = '\0';
    return *bare == '[' ? bare + 1 : bare;
}

/* Before mod_remoteip. */
static int take_ports_away(request_rec *r)
{
    const char *list = apr_table_get(r->headers_in, FOR), *bare = NULL;
    if (list == NULL)
        return DECLINED;
    while (*list) {
        const char *each = without_port(r->pool, ap_getword(r->pool, &list, ','));
        bare = bare ? apr_pstrcat(r->pool, bare, ", ", each, NULL) : each;
    }
    apr_table_set(r->headers_in, FOR, bare ? bare : "");
    apr_table_setn(r->notes, BEFORE, apr_itoa(r->pool, length_of(bare)));
    return DECLINED;
}

/* After it: it has taken away what it believed. */
static int keep_the_same_proxys(request_rec *r)
{
    const char *before = apr_table_get(r->notes, BEFORE);
    int n, believed = before ? atoi(before) - length_of(apr_table_get(r->headers_in, FOR)) : 0;

    for (n = 0; lists[n]; n++) {
        const char *list = apr_table_get(r->headers_in, lists[n]);
        char *value, *comma;
        int more = believed;
        if (list == NULL || strchr(list, ',') == NULL)
            continue;
        value = apr_pstrdup(r->pool, list);
        while (--more > 0 && (comma = strrchr(value, ',')) != NULL)
            *comma = '\0';
        if ((comma = strrchr(value, ',')) != NULL)
            value = comma + 1;
        apr_collapse_spaces(value, value);
        apr_table_setn(r->headers_in, lists[n], value);
    }
    return DECLINED;
}

static void register_hooks(apr_pool_t *p)
{
    /* mod_remoteip's is APR_HOOK_FIRST. */
    ap_hook_post_read_request(take_ports_away, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_post_read_request(keep_the_same_proxys, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA forwarded_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, AP_MODULE_FLAG_NONE};
