/* HUP and USR1 to Apache's first process ask for a reload of ours; Apache's own would end all processes of Python.
 *
 * `apachectl graceful` and `restart`, logrotate, systemd and Certbot send these signals by habit. Apache then clears its
 * configuration, and with it go, at once, the web processes and the engine. Here such a signal only leaves a file; the
 * ops process sees it within half a second and runs apache/reload.py, which loses no request.
 *
 * docs/decisions/0042-reloads.md tells why, and what else was tried.
 */

/* First: the others need it. */
#include "httpd.h"

#include "ap_mpm.h"
#include "http_config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

module AP_MODULE_DECLARE_DATA reloads_module;

static const char *asked_path;
static pid_t first_process;

/* Nothing but what a signal handler may call (signal-safety(7)). */
static void ask(int number)
{
    int kept = errno, file;
    /* Children inherit this handler. */
    if (getpid() == first_process && (file = open(asked_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) >= 0)
        close(file);
    errno = kept;
}

/* Called in the first process when it has started a child: from then on its own handlers are in place. */
static void take_signals(server_rec *s, pid_t pid, ap_generation_t generation, int slot, mpm_child_status state)
{
    struct sigaction action;

    if (state != MPM_CHILD_STARTED || asked_path == NULL)
        return;
    first_process = getpid();
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = ask;
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

static const char *set_path(cmd_parms *cmd, void *unused, const char *path)
{
    asked_path = path;
    return NULL;
}

static const command_rec directives[] = {
    AP_INIT_TAKE1("ReloadAskedFile", set_path, NULL, RSRC_CONF, "made when a signal asks for a reload"), {NULL}};

static void register_hooks(apr_pool_t *p)
{
    ap_hook_child_status(take_signals, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA reloads_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, directives, register_hooks, AP_MODULE_FLAG_NONE};
