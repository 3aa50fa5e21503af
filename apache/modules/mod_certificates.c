/* A changed certificate serves from the next handshake on, without a restart of Apache.
 *
 * mod_ssl reads certificate and key once, in Apache's first process. `make reload` checks a new pair, puts both into one
 * file of STATE_DIR, and lets a link point to it; each handshake that begins after that uses what the link points to.
 * Without the link mod_ssl's own pair serves.
 */

/* First: the others need it. */
#include "httpd.h"

#include "http_config.h"
#include "http_log.h"

#include <unistd.h>

module AP_MODULE_DECLARE_DATA certificates_module;
APLOG_USE_MODULE(certificates);

/* Of libssl, which mod_ssl brings; as in its manual, unchanged since 1.1. Its headers are a package of their own. */
typedef struct ssl_st SSL;
extern void SSL_certs_clear(SSL *ssl);
extern int SSL_use_certificate_chain_file(SSL *ssl, const char *file);
extern int SSL_use_PrivateKey_file(SSL *ssl, const char *file, int type);
extern int SSL_check_private_key(const SSL *ssl);
extern void ERR_clear_error(void);
#define SSL_FILETYPE_PEM 1

static const char *link_path;

/* Before a handshake; as mod_ssl's hook pre_handshake wants it. */
static int use_newest(conn_rec *c, SSL *ssl, int is_proxy)
{
    char path[APR_PATH_MAX];
    ssize_t length;

    if (is_proxy || link_path == NULL)
        return OK;
    /* Followed once: certificate and key must be of the same reload. */
    length = readlink(link_path, path, sizeof path - 1);
    if (length <= 0)
        return OK;
    path[length] = '\0';
    /* A key of another kind would else stay beside the new one. */
    SSL_certs_clear(ssl);
    if (SSL_use_certificate_chain_file(ssl, path) == 1 && SSL_use_PrivateKey_file(ssl, path, SSL_FILETYPE_PEM) == 1 &&
        SSL_check_private_key(ssl) == 1)
        return OK;
    ERR_clear_error();
    ap_log_cerror(APLOG_MARK, APLOG_ERR, 0, c, "the certificate in %s cannot be used: make reload", path);
    return HTTP_INTERNAL_SERVER_ERROR;
}

static const char *set_link(cmd_parms *cmd, void *unused, const char *path)
{
    link_path = path;
    return NULL;
}

static const command_rec directives[] = {
    AP_INIT_TAKE1("CertificateLink", set_link, NULL, RSRC_CONF, "points to certificate and key in one file"), {NULL}};

static void register_hooks(apr_pool_t *p)
{
    apr_optional_hook_add("pre_handshake", (void (*)(void))use_newest, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA certificates_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, directives, register_hooks, AP_MODULE_FLAG_NONE};
