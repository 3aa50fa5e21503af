/* A request reaches the app when all of it has arrived; until then its caller holds nothing but a connection here.
 *
 * mod_wsgi hands a request to the app's process before the body has come, so a hundred callers who send slowly would
 * hold every thread of it. This module reads the body first: to memory, what is large to an unlinked file.
 * A connection that has sent no whole head yet waits in the MPM's poll and holds no thread at all.
 *
 * docs/decisions/0033-arrivals.md tells why, and what else was tried. All numbers are per child process: nothing is
 * shared, so nothing is left behind by a child that crashes. But the places for predictions are the app's, and all
 * children's (docs/decisions/0114-places.md), and so is the pace of refusals (0126-rests-in-vain.md).
 */

#include "apr_atomic.h"
#include "apr_lib.h"
#include "apr_network_io.h"
#include "apr_portable.h"
#include "apr_ring.h"
#include "apr_strings.h"
#include "ap_expr.h"
#include "ap_mpm.h"
#include "ap_regex.h"
#include "http_config.h"
#include "http_connection.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "httpd.h"
#include "mod_core.h"
#include "mpm_common.h"
#include "util_time.h"
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 102)
#include "http_ssl.h"
#endif

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

module AP_MODULE_DECLARE_DATA arrivals_module;
APLOG_USE_MODULE(arrivals);

/* A body that does not say its length goes to a file beyond this; one that does, beyond SMALL_BYTES. */
#define ARRIVALS_IN_MEMORY 65536
/* So much at once: what a connection has used for it, it keeps (MaxMemFree in pool.conf). */
#define READ_BYTES 16384
/* A smaller piece of memory comes from the request's pool, a larger one from the kernel, and goes back there. */
#define POOL_BYTES 8000
/* So much of what came from the kernel is kept for the next ones. */
#define SPARE_BYTES 131072
#define SPARES 16
#define FEW_BYTES 4096
/* Larger bodies may take three quarters of all bytes: a few of them must not keep out the many that are small. */
#define SMALL_BYTES 1048576
/* A longer line is refused by the server (LimitRequestLine, LimitRequestFieldSize). */
#define MOST_LINE_BYTES 8192
/* Addresses share a counter where their hashes meet; with so many that is rare, and costs one of them a part. */
#define COUNTERS 16384
/* A body younger than this is not called slow: its first packets may have been lost. */
#define GRACE_SECONDS 3
/* Who asks again so soon after a refusal, so often in a row, does not read Retry-After; who shares a connection among
 * many callers, as a gateway does, seldom does so. */
#define AT_ONCE_MS 50
#define AT_ONCE_TIMES 5
/* So long its next request waits, twice as long after each further refusal; and longer while its address gets more
 * refusals than are free: at most so long. */
#define REST_MS 250
#define MOST_REST_MS 2000
/* An address may be ahead of its pace by so much before it waits: refusals come in bursts, and are quick. */
#define AHEAD_MS 1000
/* What a rest counts, for who opens a connection for each request: who goes on gets a third of the pace. */
#define BY_REST 2
/* How many times as much a refusal costs while all addresses together get half as many again as are free for one. */
#define CROWD_TIMES 5
/* What a refusal by the app counts, which costs so much more than one of the server's. */
#define BY_APP 5
/* The server's filters may have read so much of a body that they were not asked for yet. */
#define READ_EARLY_BYTES 32768
/* Lines between the chunks of a body may take so much; or so many times as much as the chunks. */
#define LINES_BYTES 65536
#define LINES_TIMES 4
/* So many times the rest of a refused body is waited for, a moment each. */
#define DROP_WAITS 8
/* To read so much of a body costs as much as a refusal does. */
#define BYTES_A_REFUSAL 262144
/* Rests that are as long as can be are given up after two spans of so long, where as many connections come in the second.
 * In the first those come who rested for less. */
#define FULL_MS MOST_REST_MS
#define FULL_SPANS 2
/* They count as that although an address has paid for a little between two connections. */
#define NEARLY_MS 250
/* Given up, it is looked at over so long whether a quarter more come now. */
#define LOOK_MS 500
/* Then rests had kept them off, and are not given up again for so long. */
#define AGAIN_MS 8000
/* More than an ordinary request has; the kernel keeps it, and wakes us for nothing less. Each that rests may cost as much. */
#define REST_BYTES 262144
#define REST_TICK_MS 10
#define MOST_RESTS 8192
/* A plain request that came to a port for TLS, or to one that takes both, can be told by so many bytes. */
#define TELLING_BYTES 11
/* So many heads of the largest size may wait here in part: beyond it, those that are larger than FEW_BYTES end. */
#define LARGE_HEADS 256
/* The MPM ends what waits too long. What it lets wait longer than that, ends here. */
#define LATE_SECONDS 1
/* Between two lines of the log about connections that make room: who opens many must not fill the log too. */
#define CROWD_LOG_SECONDS 10
/* So long nobody waits for a turn once the turns of others took too long. */
#define NO_TURNS_MS 1000
#define WEB_HANDLER "wsgi-handler"
#define TURN_FILTER "ARRIVALS_TURN"
/* How the names of mod_wsgi's handlers begin: ours is wsgi-handler, that of an application wsgi-script. */
#define WSGI "wsgi-"
#define PACE_FILTER "ARRIVALS_PACE"
#define HEAD_FILTER "ARRIVALS_HEAD"
#define REPLAY_FILTER "ARRIVALS_REPLAY"
#define PLACE_FILTER "ARRIVALS_PLACE"
#define REFUSAL_FILTER "ARRIVALS_REFUSAL"
#define ID_HEADER "X-Request-Id"
#define BY_HEADER "X-Forwarded-By"
/* A note that the log reads (logging.conf). */
#define NOTE_GONE "cask-gone"
/* For the app: a body like this one was answered. */
#define MAY_BE_KEPT "CASK_MAY_BE_KEPT"
/* For the count of refusals (logging.conf). */
#define NOTE_REFUSED "cask-admission"
/* How often it is counted who has places. */
#define COUNT_MS 50
/* The table of answered bodies: its size is app/host/arrivals.py's. Of each body some bits are set. */
#define ANSWERED_HEAD 64
#define BITS_A_BODY 4
/* So many bits for each body that a half of the table is for: it says yes for 1 of 400 others. */
#define BITS_FOR_A_BODY 16
/* So much of a body comes with its head, as a rule, and differs where the rest does. */
#define BEGINNING 2048

typedef struct {
    const char *folder;
    apr_int64_t max_bytes;     /* of all bodies that are arriving */
    int max_bodies;            /* arriving at once */
    int max_bodies_an_address;
    int max_waiting;           /* connections without a whole head: of one address, and in all */
    int max_head_bytes;
    int head_seconds;
    int max_held_back;         /* refusals of proxies that wait at once, each with a thread */
    int turns;                 /* requests without a body that a child hands to the app at once; 0: all */
    int long_turn_ms;          /* where none has ended for so long, the app is not busy with Python, but waits */
    int max_staying;           /* threads that wait at once for the next request of a connection, */
    int stay_ms;               /* for so long, where the one before came so soon after an answer */
    int refusals;              /* a second, to one address, that nobody waits for */
    int pressed_rate;          /* bytes a second that a body must keep while half of the places are taken */
    apr_array_header_t *uncapped; /* apr_ipsubnet_t *: proxies, whose address stands for many callers */
    const char *edge;          /* the address of the edge, which every caller of a container comes through */
    const char *places;        /* the file in which the app says how many requests it takes */
    const char *answered;      /* the file of the table of answered bodies */
    ap_regex_t *computed;      /* Cache-Control of who takes no kept answer */
} settings_t;

/* What is said where predictions are asked for, when there is no place. */
typedef struct {
    const char *retry_after;
    ap_expr_info_t *document;
} refusal_t;

/* Requests that one child has handed to the app and that are not answered yet, all and by address. Shared by all
 * children; the parent clears that of a child that has ended, however it did. */
typedef struct {
    apr_uint32_t pid;
    apr_uint32_t passed;
    apr_uint32_t of_address[COUNTERS];
} passed_t;

/* What one web process takes: of anybody, and of addresses that have fewer places than others. */
typedef struct {
    apr_uint32_t all;
    apr_uint32_t modest;
} room_t;

typedef struct {
    passed_t *by;
    apr_uint32_t *of_address;
    apr_uint64_t body;         /* hashes of all of it, */
    apr_uint64_t beginning;    /* of its first bytes and its length; 0: unknown */
    apr_uint64_t length;
} place_t;

/* The head of the table of answered bodies. Two halves follow: one is filled while the other is read, too. */
typedef struct {
    apr_uint32_t half;
    apr_uint32_t added;
} answered_t;

/* What a connection is to us. */
typedef struct caller_t {
    APR_RING_ENTRY(caller_t) link; /* among those that wait */
    apr_time_t waits_since;    /* 0: it does not */
    int socket;                /* of one that waits */
    apr_time_t head_began;
    apr_size_t head_bytes;
    apr_size_t seen_bytes;
    apr_uint32_t *waiting;     /* the counter that it holds while it waits */
    int is_in_head;
    int is_read;               /* what follows is its body */
    apr_int64_t line_bytes;    /* so much of it were lines between chunks */
    int is_woken_late;         /* SO_RCVLOWAT is set */
    apr_time_t refused_at;     /* when its last request had been refused; 0: it was not */
    apr_time_t asked_at;       /* when the next one came, if it had to rest */
    int refused_at_once;       /* so many in a row, each asked right after the one before */
    apr_time_t rest_until;     /* its next request is not read before; 0: it may come at once */
    int is_resting;            /* SO_RCVLOWAT is set, until it is woken */
    int is_met;                /* its first request has come, or waits */
    apr_time_t answered_at;    /* when its last request had been answered */
    int may_stay;              /* its next request is likely to come at once */
    int is_done;               /* its last request was refused, and all of it is read */
    int is_shaking;            /* the handshake of TLS has begun, */
    int is_shaken;             /* and is over */
    ap_filter_t *filter;       /* HEAD_FILTER of this connection */
    apr_bucket_brigade *ahead; /* read before the server asks for it: a head, or a part of one */
    apr_bucket_brigade *next;  /* what is on its way there */
    apr_uint32_t ahead_bytes;  /* so many of it are counted */
} caller_t;

/* The refusals of one address. */
typedef struct {
    apr_uint32_t paid_at;      /* when it has paid for those that it was given, in µs of the clock */
    apr_uint32_t came;         /* connections of it that came */
    apr_uint32_t since;        /* since this moment, in ms of the clock */
    apr_uint32_t full_spans;   /* in a row, of which this moment ended the last */
    apr_uint32_t in_vain;      /* rests are given up: so many came in a second in spite of them; 0: they are not */
    apr_uint32_t sure_until;   /* in ms of the clock: before, rests are not given up */
} pace_t;

typedef struct {
    apr_uint32_t paid_by_all;
    pace_t of_address[COUNTERS];
} paces_t;

typedef struct {
    apr_bucket_brigade *kept;
} replay_t;

typedef struct {
    apr_uint32_t *of_address;
    apr_uint32_t bytes;        /* that are counted: all that was announced, or has come */
    apr_uint32_t read;
} arrival_t;

/* A whole body in one piece of memory. */
typedef struct {
    char *data;
    apr_size_t size;
    apr_size_t mapped;
} piece_t;

/* One request that waits for its turn. */
typedef struct line_t {
    struct line_t *next;
    pthread_cond_t comes;
    int has_come;
} line_t;

static settings_t settings;
static paces_t *paces;         /* of all children together */
static passed_t *passed;       /* of each child */
static passed_t *own_passed;
static int children;
/* Mapped by each child; NULL: there is none. */
static const volatile room_t *rooms;
static apr_size_t rooms_in_all;
static answered_t *answered;
static apr_size_t answered_bits; /* of a half */
static apr_uint32_t waiting[COUNTERS];
static apr_uint32_t bodies[COUNTERS];
static apr_uint32_t bodies_in_all;
/* All that wait for a head of theirs, the first or the next, those that came first in front. */
static APR_RING_HEAD(waiters_t, caller_t) waiters;
static int waiters_in_all;
static apr_time_t crowd_logged_at;
static pthread_mutex_t waiters_lock = PTHREAD_MUTEX_INITIALIZER;
static apr_uint32_t held_back;
static apr_uint32_t staying;
static apr_uint32_t ahead_in_all;
static volatile void *spares[SPARES];
static struct {
    int socket;
    apr_time_t until;
} rests[MOST_RESTS];
static int rests_in_all;
static pthread_mutex_t rests_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t rests_began = PTHREAD_COND_INITIALIZER;
/* In units of 1 KiB, since 32 bits must hold it. */
static apr_uint32_t kib_in_all;

/* ── Who it is ──────────────────────────────────────────────────────────────────────────────────────────────────── */

/* A network of IPv6 with 64 bits is one caller, who may use all its addresses. */
static apr_size_t number_of(apr_sockaddr_t *address)
{
    apr_ssize_t length = address->ipaddr_len;
    const unsigned char *bytes = address->ipaddr_ptr;
#if APR_HAVE_IPV6
    if (address->family == APR_INET6) {
        if (IN6_IS_ADDR_V4MAPPED((struct in6_addr *)address->ipaddr_ptr))
            bytes += 12, length = 4;
        else
            length = 8;
    }
#endif
    return apr_hashfunc_default((const char *)bytes, &length) % COUNTERS;
}

static apr_uint32_t *counter_of(apr_uint32_t *counters, apr_sockaddr_t *address)
{
    return &counters[number_of(address)];
}

static int is_uncapped(apr_sockaddr_t *address)
{
    int n;
    for (n = 0; settings.uncapped && n < settings.uncapped->nelts; n++)
        if (apr_ipsubnet_test(APR_ARRAY_IDX(settings.uncapped, n, apr_ipsubnet_t *), address))
            return 1;
    return 0;
}

/* ── The pace of refusals ───────────────────────────────────────────────────────────────────────────────────────── */

/* Moves on until when refusals are paid for; by how many µs that is ahead. */
static apr_int32_t move_on(apr_uint32_t *paid, apr_int32_t more)
{
    apr_uint32_t now = (apr_uint32_t)apr_time_now(), before;
    apr_int32_t ahead, most = 1000 * (AHEAD_MS + MOST_REST_MS);
    do {
        before = apr_atomic_read32(paid);
        ahead = (apr_int32_t)(before - now);
        /* Of long ago, or from before the clock was set. */
        if (ahead < 0 || ahead > most)
            ahead = 0;
        ahead = ahead + more < most ? ahead + more : most;
    } while (more && apr_atomic_cas32(paid, now + (apr_uint32_t)ahead, before) != before);
    return ahead;
}

/* By how many ms an address is ahead of its pace; so many refusals more move it on, each by a part of a second. Where all
 * addresses together get more than one alone may, they pay more: else those who have many hammer as often as they like. */
static apr_int32_t ahead_ms(apr_sockaddr_t *address, int refusals)
{
    apr_int32_t more = refusals * (APR_USEC_PER_SEC / settings.refusals);
    if (more && move_on(&paces->paid_by_all, more * 2 / 3) > 1000 * AHEAD_MS)
        more *= CROWD_TIMES;
    return move_on(&paces->of_address[number_of(address)].paid_at, more) / 1000;
}

static apr_int32_t rest_ms(apr_int32_t ahead)
{
    return ahead > AHEAD_MS ? ahead - AHEAD_MS : 0;
}

/* Ends a span of counting, and begins the next. False where another thread has done so. */
static int ends(pace_t *pace, apr_uint32_t since, apr_uint32_t now)
{
    if (apr_atomic_cas32(&pace->since, now, since) != since)
        return 0;
    apr_atomic_set32(&pace->came, 0);
    return 1;
}

/* Rests are as long as can be, or are not. Whether they have been so for long, and as many connections come. */
static int gives_up(pace_t *pace, int is_full, apr_uint32_t since, apr_uint32_t now, apr_uint32_t came)
{
    apr_uint32_t age = now - since;
    if ((is_full && age < FULL_MS) || !ends(pace, since, now))
        return 0;
    /* Nobody came for long where it is too old. */
    apr_atomic_set32(&pace->full_spans, is_full && age <= 2 * FULL_MS ? pace->full_spans + 1 : 0);
    /* One of later was noted before the clock was set back. */
    if (pace->full_spans < FULL_SPANS || pace->sure_until - now - 1 < AGAIN_MS)
        return 0;
    apr_atomic_set32(&pace->in_vain, 1 + came * 1000 / age);
    return 1;
}

/* One more connection of an address comes that is so far ahead of its pace. True where its rest would only delay it: who
 * asks on when refused comes less often the longer it rests, but many callers behind one address, who ask once each, do
 * not. So rests that are full and change nothing are given up; where that lets more come, they were not in vain. */
static int rests_in_vain(pace_t *pace, apr_int32_t ahead)
{
    apr_uint32_t now = (apr_uint32_t)apr_time_as_msec(apr_time_now()), since = apr_atomic_read32(&pace->since);
    apr_uint32_t age = now - since, came = apr_atomic_inc32(&pace->came) + 1, known = apr_atomic_read32(&pace->in_vain);
    apr_uint32_t rate;

    if (known == 0)
        return gives_up(pace, ahead + NEARLY_MS >= AHEAD_MS + MOST_REST_MS, since, now, came);
    rate = came * 1000 / (age < LOOK_MS ? LOOK_MS : age);
    if (rate > known + known / 4 + settings.refusals / 20) {
        if (ends(pace, since, now)) {
            apr_atomic_set32(&pace->sure_until, now + AGAIN_MS);
            apr_atomic_set32(&pace->full_spans, 0);
            apr_atomic_set32(&pace->in_vain, 0);
        }
        return 0;
    }
    /* More of them may come by and by. */
    if (age >= LOOK_MS && ends(pace, since, now) && rate > known)
        apr_atomic_set32(&pace->in_vain, known + (rate - known) / 8);
    return 1;
}

/* For how many ms the next connection of an address is to rest. */
static apr_int32_t rest_of(apr_sockaddr_t *address)
{
    pace_t *pace = &paces->of_address[number_of(address)];
    apr_int32_t ahead = ahead_ms(address, 0);
    if (ahead == 0)
        apr_atomic_set32(&pace->in_vain, 0);
    return rest_ms(ahead) == 0 || rests_in_vain(pace, ahead) ? 0 : rest_ms(ahead);
}

static void wake(int socket)
{
    /* It may have gone, and its number be another's: that one is looked at once in vain. */
    int one = 1;
    setsockopt(socket, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof one);
}

/* One thread wakes all that rest. (The MPM's own timers may come late by seconds: its listener does not wait for them.) */
static void *wake_in_time(void *unused)
{
    int n;
    pthread_mutex_lock(&rests_lock);
    for (;;) {
        while (rests_in_all == 0)
            pthread_cond_wait(&rests_began, &rests_lock);
        pthread_mutex_unlock(&rests_lock);
        apr_sleep(apr_time_from_msec(REST_TICK_MS));
        pthread_mutex_lock(&rests_lock);
        for (n = rests_in_all - 1; n >= 0; n--)
            if (rests[n].until <= apr_time_now()) {
                wake(rests[n].socket);
                rests[n] = rests[--rests_in_all];
            }
    }
    return NULL;
}

/* False where too many rest, or nothing could end it. */
static int wake_later(int socket, apr_time_t until)
{
    static int has_thread;
    pthread_t thread;
    int is_taken;
    pthread_mutex_lock(&rests_lock);
    has_thread = has_thread || pthread_create(&thread, NULL, wake_in_time, NULL) == 0;
    is_taken = has_thread && rests_in_all < MOST_RESTS;
    if (is_taken) {
        rests[rests_in_all].socket = socket;
        rests[rests_in_all++].until = until;
        pthread_cond_signal(&rests_began);
    }
    pthread_mutex_unlock(&rests_lock);
    return is_taken;
}

/* Whether what the connection has sent is to be read later. It keeps no thread: the MPM polls it, and the kernel says
 * nothing of what comes. */
static int has_to_rest(caller_t *caller, int socket)
{
    apr_time_t until = caller->rest_until;
    int much = REST_BYTES;
    caller->rest_until = 0;
    if (caller->is_resting) {
        /* Its time is over; or it has gone, or sends much. */
        wake(socket);
        return caller->is_resting = 0;
    }
    if (until <= apr_time_now() || setsockopt(socket, SOL_SOCKET, SO_RCVLOWAT, &much, sizeof much) != 0)
        return 0;
    caller->asked_at = apr_time_now();
    caller->is_resting = wake_later(socket, until);
    if (!caller->is_resting)
        wake(socket);
    return caller->is_resting;
}

/* Connections of a proxy are shared by many callers. */
static int is_shared(conn_rec *c)
{
    return is_uncapped(c->client_addr) || (settings.edge && strcmp(settings.edge, c->client_ip) == 0);
}

/* Whoever watches over the service may have the address of those who hammer, behind a proxy of one's own. */
static int asks_for_health(int socket)
{
    static const char *const begins[] = {"GET /livez ", "GET /readyz ", "GET /startupz "};
    char seen[16];
    ssize_t got = recv(socket, seen, sizeof seen, MSG_PEEK | MSG_DONTWAIT);
    size_t n;
    for (n = 0; n < sizeof begins / sizeof *begins; n++)
        if (got >= (ssize_t)strlen(begins[n]) && memcmp(seen, begins[n], strlen(begins[n])) == 0)
            return 1;
    return 0;
}

/* Who opens a connection for each request, and gets more refusals than are free, waits with the next one. */
static void meet_pace(conn_rec *c, caller_t *caller, int socket)
{
    if (caller->is_met || paces == NULL)
        return;
    caller->is_met = 1;
    if (is_shared(c) || rest_of(c->client_addr) == 0 || asks_for_health(socket))
        return;
    /* Each has a moment of its own, and pays for it. */
    caller->rest_until = apr_time_now() + apr_time_from_msec(rest_ms(ahead_ms(c->client_addr, BY_REST)));
}

/* ── The head: no thread waits for it ───────────────────────────────────────────────────────────────────────────── */

/* With the lock. */
static void leave_waiters(caller_t *caller)
{
    APR_RING_REMOVE(caller, link);
    caller->waits_since = 0;
    waiters_in_all--;
}

/* Each is a connection of which the server takes only so many: where too many wait, those that have done so longest go, so
 * that others can come. So do those whose time is over, which the MPM sees to later. The kernel then says of them that
 * nothing more will come, and the MPM wakes them. */
static void wait_among_others(conn_rec *c, caller_t *caller, int socket)
{
    apr_time_t now = apr_time_now(), over = now - apr_time_from_sec(settings.head_seconds + LATE_SECONDS);
    caller_t *first;
    int is_told = 0;
    if (is_shared(c))
        return;
    pthread_mutex_lock(&waiters_lock);
    if (caller->waits_since == 0) {
        caller->waits_since = now;
        caller->socket = socket;
        APR_RING_INSERT_TAIL(&waiters, caller, caller_t, link);
        waiters_in_all++;
    }
    if (waiters_in_all > settings.max_waiting && now - crowd_logged_at > apr_time_from_sec(CROWD_LOG_SECONDS)) {
        crowd_logged_at = now;
        is_told = 1;
    }
    while (waiters_in_all && (waiters_in_all > settings.max_waiting || APR_RING_FIRST(&waiters)->waits_since < over)) {
        first = APR_RING_FIRST(&waiters);
        leave_waiters(first);
        shutdown(first->socket, SHUT_RD);
    }
    pthread_mutex_unlock(&waiters_lock);
    if (is_told)
        ap_log_cerror(APLOG_MARK, APLOG_WARNING, 0, c,
                      "connections end: more than %d wait for a request, and those that have waited longest are let go",
                      settings.max_waiting);
}

static apr_status_t waits_no_more(void *data)
{
    caller_t *caller = data;
    pthread_mutex_lock(&waiters_lock);
    if (caller->waits_since)
        leave_waiters(caller);
    pthread_mutex_unlock(&waiters_lock);
    apr_atomic_sub32(&ahead_in_all, caller->ahead_bytes);
    caller->ahead_bytes = 0;
    if (caller->waiting) {
        apr_atomic_dec32(caller->waiting);
        caller->waiting = NULL;
    }
    return APR_SUCCESS;
}

/* Whether the server has what it needs to answer: the whole head, or enough of one to refuse it. */
static int is_enough(const char *seen, apr_size_t length)
{
    apr_size_t at = 0, line = 0, lines = 0;
    /* Empty lines before a request are nothing yet (RFC 9112, 2.2). */
    while (at < length && (seen[at] == '\r' || seen[at] == '\n'))
        at++;
    for (line = at; at < length; at++) {
        if (seen[at] != '\n')
            continue;
        if (lines++ == 0 && memmem(seen + line, at - line, " HTTP/", 6) == NULL)
            return 1;
        if (at - line == 0 || (at - line == 1 && seen[line] == '\r'))
            return 1;
        line = at + 1;
    }
    return at - line >= MOST_LINE_BYTES;
}

/* Whether the server is to see what so many bytes are that wait in the socket. The poll is to wake us for news only. */
static int sees(int socket, caller_t *caller, int come, int got)
{
    int wanted;
    /* Woken without news: the caller has said that no more will come. */
    come = come || (apr_size_t)got == caller->seen_bytes;
    caller->seen_bytes = come ? 0 : (apr_size_t)got;
    wanted = come ? 1 : got + 1;
    if (!come || caller->is_woken_late)
        setsockopt(socket, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof wanted);
    caller->is_woken_late = !come;
    return come;
}

/* 1: the server can read a head without waiting, or say what is wrong with it; 0: not yet; -1: the caller is gone. */
static int head_has_come(int socket, caller_t *caller)
{
    char few[FEW_BYTES], *seen = few;
    apr_size_t size = sizeof few;
    ssize_t got;
    int come;

    do
        got = recv(socket, few, size, MSG_PEEK | MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -1;
    come = is_enough(seen, (apr_size_t)got);
    if (!come && (apr_size_t)got == size) {
        /* Cookies, or a dripper. */
        seen = malloc(settings.max_head_bytes);
        got = seen ? recv(socket, seen, settings.max_head_bytes, MSG_PEEK | MSG_DONTWAIT) : 0;
        come = got <= 0 || got == settings.max_head_bytes || is_enough(seen, (apr_size_t)got);
        free(seen);
    }
    return sees(socket, caller, come, (int)got);
}

static int is_tls(conn_rec *c)
{
    /* What has come is encrypted, and no line end is to be looked for. Older servers tell by this alone, newer ones, such
     * as 2.4.71, no longer set it for TLS. */
    if (c->clogging_input_filters)
        return 1;
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 102)
    return ap_ssl_conn_is_ssl(c);
#else
    return 0;
#endif
}

static int has_ahead(const caller_t *caller)
{
    return caller->ahead && !APR_BRIGADE_EMPTY(caller->ahead);
}

/* Takes what has come of a head out of the socket and the filters below, where the rest of it would wake nobody. The same
 * answers as head_has_come. */
static int read_ahead(caller_t *caller)
{
    ap_filter_t *f = caller->filter;
    apr_size_t size = settings.max_head_bytes, length = size, more;
    apr_status_t rv;
    int come;
    char *seen = malloc(size);

    if (caller->ahead == NULL) {
        caller->ahead = apr_brigade_create(f->c->pool, f->c->bucket_alloc);
        caller->next = apr_brigade_create(f->c->pool, f->c->bucket_alloc);
    }
    rv = seen ? apr_brigade_flatten(caller->ahead, seen, &length) : APR_ENOMEM;
    come = rv == APR_SUCCESS && (length == size || is_enough(seen, length));
    while (!come && rv == APR_SUCCESS) {
        more = size - length;
        rv = ap_get_brigade(f->next, caller->next, AP_MODE_READBYTES, APR_NONBLOCK_READ, (apr_off_t)more);
        if (rv == APR_SUCCESS && APR_BRIGADE_EMPTY(caller->next))
            rv = APR_EAGAIN;
        if (rv == APR_SUCCESS && (rv = apr_brigade_flatten(caller->next, seen + length, &more)) == APR_SUCCESS) {
            /* In few pieces, however it came: each costs more than its bytes. */
            rv = apr_brigade_write(caller->ahead, NULL, NULL, seen + length, more);
            length += more;
            come = length == size || is_enough(seen, length);
            if (more == 0)
                rv = APR_EOF;
        }
        apr_brigade_cleanup(caller->next);
    }
    free(seen);
    /* The server says what is wrong with half a head. To who has sent nothing there is nothing to say. */
    if (come || (APR_STATUS_IS_EOF(rv) && length > 0))
        return 1;
    if (!APR_STATUS_IS_EAGAIN(rv))
        return -1;
    apr_atomic_add32(&ahead_in_all, (apr_uint32_t)length - caller->ahead_bytes);
    caller->ahead_bytes = (apr_uint32_t)length;
    return length > FEW_BYTES && apr_atomic_read32(&ahead_in_all) > LARGE_HEADS * size ? -1 : 0;
}

/* Whether something comes within a moment. The thread waits for it, as long as few do so. */
static int more_comes(int socket)
{
    struct pollfd poll_of = {socket, POLLIN, 0};
    int comes = apr_atomic_inc32(&staying) < (apr_uint32_t)settings.max_staying;
    comes = comes && poll(&poll_of, 1, settings.stay_ms) > 0;
    apr_atomic_dec32(&staying);
    return comes;
}

/* Goes on with the handshake as far as its messages have come. The same answers as head_has_come. */
static int shake_hands(caller_t *caller, int socket)
{
    ap_filter_t *f = caller->filter;
    char seen[TELLING_BYTES];
    /* What answers a hello comes soon where the caller is near; to wake a thread for it costs more. */
    int stays = !caller->is_shaking;
    ssize_t got = recv(socket, seen, sizeof seen, MSG_PEEK | MSG_DONTWAIT);
    apr_bucket_brigade *bb;
    apr_status_t rv;

    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? 0 : -1;
    /* Plain HTTP, of which mod_ssl makes a request once. */
    if (!caller->is_shaking && apr_isalpha(seen[0]))
        return sees(socket, caller, got == sizeof seen, (int)got);
    caller->is_shaking = 1;
    bb = apr_brigade_create(f->c->pool, f->c->bucket_alloc);
    do
        rv = ap_get_brigade(f->next, bb, AP_MODE_INIT, APR_NONBLOCK_READ, 0);
    while (APR_STATUS_IS_EAGAIN(rv) && stays-- > 0 && more_comes(socket));
    apr_brigade_destroy(bb);
    caller->is_shaken = rv == APR_SUCCESS;
    return !APR_STATUS_IS_EAGAIN(rv);
}

/* The same answers as head_has_come, where what comes is encrypted, or a part of it is read already. */
static int head_is_read_ahead(conn_rec *c, caller_t *caller, int socket)
{
    int come = 1;
    if (is_tls(c) && !caller->is_shaken)
        come = shake_hands(caller, socket);
    /* HTTP/2, by now; or the handshake failed, or it is none. */
    if (come <= 0 || strcmp(ap_get_protocol(c), AP_PROTOCOL_HTTP1) || (is_tls(c) && !caller->is_shaken))
        return come;
    return read_ahead(caller);
}

/* By way of "all is written", as between two requests: the MPM polls it, for KeepAliveTimeout. */
static void wait_for_more(conn_rec *c)
{
    c->keepalive = AP_CONN_KEEPALIVE;
    c->cs->state = CONN_STATE_WRITE_COMPLETION;
}

/* Others that wait are let go where all threads are busy. This one has sent something already. */
static void wait_for_rest(conn_rec *c)
{
    wait_for_more(c);
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 135)
    c->cs->state = CONN_STATE_ASYNC_WAITIO;
    c->cs->sense = CONN_SENSE_WANT_READ;
#endif
}

/* The MPM is to close it. */
static int end(conn_rec *c)
{
    c->keepalive = AP_CONN_CLOSE;
    c->cs->state = CONN_STATE_LINGER;
    return OK;
}

static int wait_for_head(conn_rec *c)
{
    caller_t *caller = ap_get_module_config(c->conn_config, &arrivals_module);
    apr_socket_t *socket = ap_get_conn_socket(c);
    apr_os_sock_t number;
    apr_time_t now;
    int come;

    /* HTTP/2 sees to its own streams. */
    if (strcmp(ap_get_protocol(c), AP_PROTOCOL_HTTP1))
        return DECLINED;
    if (caller == NULL || c->master || c->cs == NULL || socket == NULL || settings.head_seconds == 0)
        return DECLINED;
    /* What has been read already cannot rest: who sends on without reading the answers pays with the connection. */
    if (c->data_in_input_filters && caller->rest_until > apr_time_now())
        return end(c);
    if (c->data_in_input_filters || apr_os_sock_get(&number, socket) != APR_SUCCESS)
        return DECLINED;
    meet_pace(c, caller, number);
    if (has_to_rest(caller, number)) {
        wait_for_rest(c);
        return OK;
    }
    /* Without a limit of its size no head is read ahead, and so none that is encrypted. */
    if (caller->filter == NULL && is_tls(c))
        return DECLINED;
    now = apr_time_now();
    if (!caller->is_in_head) {
        caller->is_in_head = 1;
        caller->head_began = now;
    }
    come = is_tls(c) || has_ahead(caller) ? head_is_read_ahead(c, caller, number) : head_has_come(number, caller);
    if (come > 0) {
        waits_no_more(caller);
        caller->is_in_head = 0;
        return DECLINED;
    }
    if (come == 0 && caller->waiting == NULL && !is_uncapped(c->client_addr)) {
        caller->waiting = counter_of(waiting, c->client_addr);
        if (apr_atomic_inc32(caller->waiting) >= (apr_uint32_t)settings.max_waiting)
            come = -1;
    }
    if (now - caller->head_began > apr_time_from_sec(settings.head_seconds))
        come = -1;
    if (come < 0) {
        waits_no_more(caller);
        return end(c);
    }
    wait_among_others(c, caller, number);
    if (caller->is_shaking || has_ahead(caller))
        wait_for_rest(c);
    else
        wait_for_more(c);
    return OK;
}

/* ── The next head: the thread stays for it ──────────────────────────────────────────────────────────────────────── */

/* Between two requests the MPM has the listener poll the connection and wake a thread: two switches of threads, which
 * cost more than all else of a small answer. Here the thread that has answered polls for itself, for a moment, as long as
 * few do so. True: a whole head is there, for which nobody will have to wait. */
static int next_head_comes(conn_rec *c, caller_t *caller)
{
    char few[FEW_BYTES];
    apr_socket_t *socket = ap_get_conn_socket(c);
    apr_os_sock_t number;
    ssize_t got = 0;
    int is_likely = caller->may_stay;

    caller->may_stay = 0;
    if (!is_likely || caller->rest_until || c->aborted || c->keepalive != AP_CONN_KEEPALIVE || socket == NULL ||
        apr_os_sock_get(&number, socket) != APR_SUCCESS)
        return 0;
    if (more_comes(number))
        got = recv(number, few, sizeof few, MSG_PEEK | MSG_DONTWAIT);
    return got > 0 && (is_tls(c) || is_enough(few, (apr_size_t)got));
}

static int note_answer(request_rec *r)
{
    conn_rec *c = r->connection;
    caller_t *caller = ap_get_module_config(c->conn_config, &arrivals_module);
    if (caller == NULL || c->master || settings.max_staying == 0)
        return DECLINED;
    while (r->prev)
        r = r->prev;
    caller->may_stay = r->request_time - caller->answered_at < apr_time_from_msec(settings.stay_ms);
    caller->answered_at = apr_time_now();
    return DECLINED;
}

/* ── The next head: a part of it is here ─────────────────────────────────────────────────────────────────────────── */

/* What is read ahead, in the way that the server asks for it. */
static apr_status_t hand_over(caller_t *caller, apr_bucket_brigade *bb, ap_input_mode_t mode, apr_read_type_e block,
                              apr_off_t bytes)
{
    apr_bucket *end, *each, *copy;
    apr_status_t rv = APR_SUCCESS;

    if (mode == AP_MODE_GETLINE)
        rv = apr_brigade_split_line(bb, caller->ahead, block, HUGE_STRING_LEN);
    else if (mode == AP_MODE_READBYTES || mode == AP_MODE_SPECULATIVE) {
        rv = apr_brigade_partition(caller->ahead, bytes, &end);
        if (rv != APR_SUCCESS && rv != APR_INCOMPLETE)
            return rv;
        for (each = APR_BRIGADE_FIRST(caller->ahead); each != end; each = APR_BUCKET_NEXT(each)) {
            if ((rv = apr_bucket_copy(each, &copy)) != APR_SUCCESS)
                return rv;
            APR_BRIGADE_INSERT_TAIL(bb, copy);
        }
        while (mode == AP_MODE_READBYTES && (each = APR_BRIGADE_FIRST(caller->ahead)) != end)
            apr_bucket_delete(each);
        rv = APR_SUCCESS;
    }
    /* What is left of a bucket that was taken to its end is one of no bytes, which ends a body for mod_wsgi. */
    while (has_ahead(caller) && (each = APR_BRIGADE_FIRST(caller->ahead))->length == 0)
        apr_bucket_delete(each);
    return rv;
}

static apr_status_t wait_for_next(conn_rec *c, caller_t *caller)
{
    apr_os_sock_t number;
    if (apr_os_sock_get(&number, ap_get_conn_socket(c)) == APR_SUCCESS)
        wait_among_others(c, caller, number);
    return APR_EAGAIN;
}

/* The server looks whether the next request is here already. One of which a part is here waits as a first one does. */
static apr_status_t look_for_next(ap_filter_t *f, apr_bucket_brigade *bb, apr_off_t bytes)
{
    caller_t *caller = ap_get_module_config(f->c->conn_config, &arrivals_module);
    apr_status_t rv;
    int come;

    if (!has_ahead(caller)) {
        rv = ap_get_brigade(f->next, bb, AP_MODE_SPECULATIVE, APR_NONBLOCK_READ, bytes);
        if (caller->may_stay && (APR_STATUS_IS_EAGAIN(rv) || (rv == APR_SUCCESS && APR_BRIGADE_EMPTY(bb))) &&
            next_head_comes(f->c, caller)) {
            rv = ap_get_brigade(f->next, bb, AP_MODE_SPECULATIVE, APR_NONBLOCK_READ, bytes);
            if (!is_tls(f->c))
                return rv;
        }
        if (APR_STATUS_IS_EAGAIN(rv) || (rv == APR_SUCCESS && APR_BRIGADE_EMPTY(bb)))
            return wait_for_next(f->c, caller);
        if (rv != APR_SUCCESS)
            return rv;
        apr_brigade_cleanup(bb);
    }
    come = read_ahead(caller);
    if (come == 0)
        return wait_for_next(f->c, caller);
    if (come < 0)
        return APR_EOF;
    return hand_over(caller, bb, AP_MODE_SPECULATIVE, APR_NONBLOCK_READ, bytes);
}

/* ── The head's size ────────────────────────────────────────────────────────────────────────────────────────────── */

static apr_status_t count_head(ap_filter_t *f, apr_bucket_brigade *bb, ap_input_mode_t mode, apr_read_type_e block,
                               apr_off_t bytes)
{
    caller_t *caller = ap_get_module_config(f->c->conn_config, &arrivals_module);
    int looks_ahead = mode == AP_MODE_SPECULATIVE && block == APR_NONBLOCK_READ;
    apr_status_t rv;
    apr_off_t length = 0;

    /* Who has to rest may have asked on already: what is read here could not rest any more. */
    if (looks_ahead && caller->rest_until > apr_time_now())
        return APR_EAGAIN;
    if (looks_ahead && f->c->keepalive == AP_CONN_KEEPALIVE && !f->c->master && settings.head_seconds)
        return look_for_next(f, bb, bytes);
    if (has_ahead(caller) && mode != AP_MODE_EXHAUSTIVE)
        rv = hand_over(caller, bb, mode, block, bytes);
    else {
        if (has_ahead(caller))
            APR_BRIGADE_CONCAT(bb, caller->ahead);
        rv = ap_get_brigade(f->next, bb, mode, block, bytes);
    }
    if (rv != APR_SUCCESS || mode != AP_MODE_GETLINE)
        return rv;
    apr_brigade_length(bb, 0, &length);
    if (caller->is_read) {
        caller->line_bytes += length;
        return rv;
    }
    if (length > 0)
        caller->head_bytes += (apr_size_t)length;
    if (caller->head_bytes > (apr_size_t)settings.max_head_bytes) {
        /* As if a line were too long: the server answers that by itself, and closes. */
        apr_brigade_cleanup(bb);
        return APR_ENOSPC;
    }
    return rv;
}

static int meet(conn_rec *c, void *socket)
{
    caller_t *caller;
    if (c->master)
        return DECLINED;
    caller = apr_pcalloc(c->pool, sizeof *caller);
    ap_set_module_config(c->conn_config, &arrivals_module, caller);
    apr_pool_cleanup_register(c->pool, caller, waits_no_more, apr_pool_cleanup_null);
    if (settings.max_head_bytes)
        caller->filter = ap_add_input_filter(HEAD_FILTER, NULL, NULL, c);
    return DECLINED;
}

static int head_begins(request_rec *r)
{
    caller_t *caller = ap_get_module_config(r->connection->conn_config, &arrivals_module);
    if (caller) {
        caller->head_bytes = caller->line_bytes = 0;
        caller->is_read = caller->is_done = caller->may_stay = 0;
    }
    return OK;
}

/* Whether a proxy speaks for the caller. The edge is none: it has written the one address, and the caller nothing. */
static int is_spoken_for(request_rec *r)
{
    const char *list = apr_table_get(r->headers_in, "X-Forwarded-For");
    if (apr_table_get(r->headers_in, "Forwarded"))
        return 1;
    if (list == NULL)
        return 0;
    return settings.edge == NULL || strcmp(settings.edge, r->connection->client_ip) != 0 || strchr(list, ',') != NULL;
}

/* Lines that are read from here on are those of chunks. */
static int head_is_read(request_rec *r)
{
    caller_t *caller = ap_get_module_config(r->connection->conn_config, &arrivals_module);
    if (caller) {
        caller->is_read = 1;
        waits_no_more(caller);
    }
    /* For addresses.conf: a stream of HTTP/2, and nobody's words. */
    if (r->connection->master)
        apr_table_setn(r->notes, "CASK_STREAM", "1");
    /* mod_remoteip, which comes next, takes addresses out of the first. That there was a proxy must stay known: who
     * speaks through one is no insider (access.conf, ops.conf, app/web/middleware/internal_networks.py). */
    if (is_spoken_for(r))
        apr_table_set(r->headers_in, BY_HEADER, r->connection->client_ip);
    return DECLINED;
}

/* The server says 400 to a head that is too large; RFC 6585 has 431 for it. */
static int say_why(request_rec *r)
{
    const char *notes;
    if (r->prev == NULL || r->prev->status != HTTP_BAD_REQUEST || strncmp(r->uri, "/_errors/400.", 13) != 0)
        return DECLINED;
    notes = apr_table_get(r->prev->notes, "error-notes");
    if (notes && (strstr(notes, "header field") || strstr(notes, "number of request header"))) {
        memcpy(r->uri + 9, "431", 3);
        r->status = HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE;
    }
    return DECLINED;
}

/* The server answers a failed condition on a file by itself, past ErrorDocument and with an empty body. */
static int meet_conditions(request_rec *r)
{
    if (r->main || r->prev || r->method_number != M_GET || r->finfo.filetype != APR_REG || strncmp(r->uri, "/static/", 8))
        return DECLINED;
    ap_update_mtime(r, r->finfo.mtime);
    ap_set_last_modified(r);
    ap_set_etag(r);
    return ap_meets_conditions(r) == HTTP_PRECONDITION_FAILED ? HTTP_PRECONDITION_FAILED : DECLINED;
}

/* ── Answered bodies ────────────────────────────────────────────────────────────────────────────────────────────── */

static apr_uint64_t mix(apr_uint64_t hash, apr_uint64_t word)
{
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return hash << 29 | hash >> 35;
}

/* Of all bytes: pictures of one camera may be alike in most places. Four at a time, as the processor can. Never 0. */
static apr_uint64_t hash_of(const char *data, apr_size_t size)
{
    apr_uint64_t words[4], hash[4] = {1, 2, 3, 4}, whole = size;
    apr_size_t at, n;
    for (at = 0; at + sizeof words <= size; at += sizeof words) {
        memcpy(words, data + at, sizeof words);
        for (n = 0; n < 4; n++)
            hash[n] = mix(hash[n], words[n]);
    }
    memset(words, 0, sizeof words);
    memcpy(words, data + at, size - at);
    for (n = 0; n < 4; n++)
        whole = mix(mix(whole, hash[n]), words[n]);
    whole ^= whole >> 31;
    return whole ? whole : 1;
}

/* The byte of the n-th bit of this hash in a half of the table, and the bit. */
static unsigned char *bit_of(apr_uint64_t hash, int n, apr_uint32_t half, unsigned char *bit)
{
    apr_size_t at = ((apr_size_t)(hash & 0xFFFFFFFF) + n * (apr_size_t)(hash >> 32 | 1)) & (answered_bits - 1);
    *bit = (unsigned char)(1 << (at & 7));
    return (unsigned char *)answered + ANSWERED_HEAD + half * (answered_bits / 8) + at / 8;
}

static int has_all_bits(apr_uint64_t hash, apr_uint32_t half)
{
    unsigned char bit;
    int n, has_all = 1;
    for (n = 0; n < BITS_A_BODY && has_all; n++)
        has_all = (*bit_of(hash, n, half, &bit) & bit) != 0;
    return has_all;
}

static apr_uint64_t hash_of_beginning(const char *data, apr_int64_t length)
{
    apr_uint64_t hash = hash_of(data, BEGINNING);
    return mix(hash, (apr_uint64_t)length) | 1;
}

/* Whether such a body was answered; a few times in a thousand it was not. */
static int is_known(apr_uint64_t hash)
{
    return answered && hash && (has_all_bits(hash, 0) || has_all_bits(hash, 1));
}

/* When one half is full the other is cleared, and filled: what was answered stays known for as many others again. */
static void remember(apr_uint64_t hash)
{
    apr_uint32_t half, added;
    unsigned char bit, *byte;
    int n;
    if (answered == NULL || hash == 0)
        return;
    half = apr_atomic_read32(&answered->half) & 1;
    if (has_all_bits(hash, half))
        return;
    for (n = 0; n < BITS_A_BODY; n++) {
        byte = bit_of(hash, n, half, &bit);
        __atomic_fetch_or(byte, bit, __ATOMIC_RELAXED);
    }
    added = apr_atomic_inc32(&answered->added) + 1;
    if (added >= answered_bits / BITS_FOR_A_BODY && apr_atomic_cas32(&answered->added, 0, added) == added) {
        half = 1 - half;
        memset((unsigned char *)answered + ANSWERED_HEAD + half * (answered_bits / 8), 0, answered_bits / 8);
        apr_atomic_set32(&answered->half, half);
    }
}

/* ── The body ───────────────────────────────────────────────────────────────────────────────────────────────────── */

static apr_status_t has_arrived(void *data)
{
    arrival_t *arrival = data;
    apr_atomic_dec32(&bodies_in_all);
    if (arrival->of_address)
        apr_atomic_dec32(arrival->of_address);
    return APR_SUCCESS;
}

static apr_status_t lets_go(void *data)
{
    arrival_t *arrival = data;
    apr_atomic_sub32(&kib_in_all, arrival->bytes >> 10);
    return APR_SUCCESS;
}

/* A file without a name in this folder, with room for so many bytes. */
static apr_status_t open_file_in(const char *folder, apr_file_t **file, apr_int64_t length, request_rec *r)
{
    char *path = apr_pstrcat(r->pool, folder, "/cask-body.XXXXXX", NULL);
    apr_os_file_t descriptor;
    apr_status_t rv = apr_file_mktemp(file, path, APR_FOPEN_CREATE | APR_FOPEN_READ | APR_FOPEN_WRITE |
                                      APR_FOPEN_EXCL | APR_FOPEN_BINARY, r->pool);
    if (rv != APR_SUCCESS)
        return rv;
    unlink(path);
    apr_os_file_get(&descriptor, *file);
    rv = length > 0 ? posix_fallocate(descriptor, 0, length) : APR_SUCCESS;
    if (rv != APR_SUCCESS)
        apr_file_close(*file);
    return rv;
}

/* Where a body goes that is too large for memory. A full STATE_DIR must not end predictions: then among the temporary
 * files. */
static apr_status_t open_file(apr_file_t **file, apr_int64_t length, request_rec *r)
{
    const char *temporary;
    apr_status_t rv = open_file_in(settings.folder, file, length, r);
    if (rv == APR_SUCCESS)
        return rv;
    if (apr_temp_dir_get(&temporary, r->pool) == APR_SUCCESS && open_file_in(temporary, file, length, r) == APR_SUCCESS)
        return APR_SUCCESS;
    return rv;
}

/* To map memory, to touch it first and to give it back cost a quarter of a refusal. */
static void *take_spare(apr_size_t size)
{
    void *found = NULL;
    int n;
    for (n = 0; size <= SPARE_BYTES && n < SPARES && found == NULL; n++)
        if (spares[n])
            found = apr_atomic_xchgptr(&spares[n], NULL);
    return found;
}

static apr_status_t give_back(void *data)
{
    piece_t *piece = data;
    int n;
    for (n = 0; piece->mapped == SPARE_BYTES && n < SPARES; n++)
        if (spares[n] == NULL && apr_atomic_casptr(&spares[n], piece->data, NULL) == NULL)
            return APR_SUCCESS;
    munmap(piece->data, piece->mapped);
    return APR_SUCCESS;
}

/* One piece for all of a body of so many bytes; false where it is to go to a file. Files cost more than they hold: each
 * is made and removed under its folder's lock, and waits for the file system's journal where others write. */
static int has_piece(piece_t *piece, apr_int64_t length, request_rec *r)
{
    if (length <= 0 || length > SMALL_BYTES)
        return 0;
    piece->size = (apr_size_t)length;
    if (length <= POOL_BYTES) {
        piece->data = apr_palloc(r->pool, piece->size);
        return 1;
    }
    piece->mapped = piece->size > SPARE_BYTES ? piece->size : SPARE_BYTES;
    piece->data = take_spare(piece->size);
    if (piece->data == NULL)
        piece->data = mmap(NULL, piece->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece->data == MAP_FAILED)
        return 0;
    apr_pool_cleanup_register(r->pool, piece, give_back, apr_pool_cleanup_null);
    return 1;
}

static apr_status_t replay(ap_filter_t *f, apr_bucket_brigade *bb, ap_input_mode_t mode, apr_read_type_e block,
                           apr_off_t bytes)
{
    replay_t *body = f->ctx;
    apr_bucket *end;
    apr_status_t rv;

    if (APR_BRIGADE_EMPTY(body->kept)) {
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(f->c->bucket_alloc));
        return APR_SUCCESS;
    }
    if (mode == AP_MODE_GETLINE)
        return apr_brigade_split_line(bb, body->kept, block, HUGE_STRING_LEN);
    if (mode == AP_MODE_EXHAUSTIVE)
        bytes = APR_INT64_MAX;
    else if (mode != AP_MODE_READBYTES && mode != AP_MODE_SPECULATIVE)
        return APR_ENOTIMPL;
    /* mod_wsgi asks for 8 KiB and takes what it gets. Each part that it sends wakes the app's process, which gives away
     * Python's lock and waits for it again. What lies in a file would become memory here. */
    end = APR_BRIGADE_FIRST(body->kept);
    if (mode == AP_MODE_READBYTES && f->r->handler && !strncmp(f->r->handler, WSGI, sizeof WSGI - 1) &&
        !APR_BUCKET_IS_FILE(end) && end->length != (apr_size_t)-1 && (apr_off_t)end->length > bytes)
        bytes = (apr_off_t)end->length;
    rv = apr_brigade_partition(body->kept, bytes, &end);
    if (rv != APR_SUCCESS && rv != APR_INCOMPLETE)
        return rv;
    while (APR_BRIGADE_FIRST(body->kept) != end && !APR_BRIGADE_EMPTY(body->kept)) {
        apr_bucket *each = APR_BRIGADE_FIRST(body->kept);
        APR_BUCKET_REMOVE(each);
        APR_BRIGADE_INSERT_TAIL(bb, each);
    }
    return APR_SUCCESS;
}

/* The status that tells the caller why the body cannot be had. */
static int why_not(request_rec *r, apr_status_t rv)
{
    if (APR_STATUS_IS_EOF(rv) || APR_STATUS_IS_ECONNRESET(rv) || APR_STATUS_IS_ECONNABORTED(rv) ||
        APR_STATUS_IS_EPIPE(rv) || rv == APR_INCOMPLETE || r->connection->aborted) {
        /* One who only stopped sending still reads what we say. */
        apr_table_setn(r->notes, NOTE_GONE, "1");
        return HTTP_BAD_REQUEST;
    }
    return ap_map_http_request_error(rv, HTTP_BAD_REQUEST);
}

static int cannot_keep(request_rec *r, apr_status_t rv)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, rv, r, "a body cannot be kept in %s", settings.folder);
    return HTTP_INSUFFICIENT_STORAGE;
}

static int is_computed(request_rec *r);
static int is_full(apr_sockaddr_t *address);

static int fail(request_rec *r, int status)
{
    /* What is left of the body would be taken for the next request. */
    r->connection->keepalive = AP_CONN_CLOSE;
    return status;
}

static int refuse(request_rec *r, int status, const char *why)
{
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "a body is not read: %s", why);
    apr_table_setn(r->err_headers_out, "Retry-After", "2");
    return fail(r, status);
}

/* Whether a body of so many bytes may have `more` bytes beside what has arrived already. */
static int has_room(apr_int64_t size, apr_int64_t more)
{
    apr_int64_t most = size > SMALL_BYTES ? settings.max_bytes - settings.max_bytes / 4 : settings.max_bytes;
    return (apr_int64_t)apr_atomic_read32(&kib_in_all) * 1024 + more <= most;
}

static int is_too_slow(apr_time_t began, apr_int64_t got)
{
    apr_time_t age = apr_time_now() - began;
    if (age < apr_time_from_sec(GRACE_SECONDS))
        return 0;
    if (apr_atomic_read32(&bodies_in_all) * 2 < (apr_uint32_t)settings.max_bodies &&
        (apr_int64_t)apr_atomic_read32(&kib_in_all) * 2048 < settings.max_bytes)
        return 0;
    return got * APR_USEC_PER_SEC < (apr_int64_t)settings.pressed_rate * age;
}

/* Whether nearly all of what came are lines between chunks, with extensions or chunks of a byte: so a body of some bytes, far
 * below all limits, would keep a core busy for hours. */
static int is_all_lines(request_rec *r, apr_int64_t got)
{
    caller_t *caller = ap_get_module_config(r->connection->conn_config, &arrivals_module);
    return caller && caller->line_bytes > LINES_BYTES && caller->line_bytes / LINES_TIMES > got;
}

/* Whether there is no place for a body of which this is known: none that began so was answered. */
static int is_in_vain(request_rec *r, const place_t *place)
{
    /* A stream that is answered while it sends would be reset. */
    return own_passed && !r->connection->master && is_full(r->useragent_addr) &&
           (is_computed(r) || !is_known(place->beginning));
}

/* Read all of it into `kept`. `length_said`: 0 where it does not say. `place`: for its hashes, where it came in one piece.
 * Returns OK, a status, or DONE: the rest would be read in vain, of one who `predicts`. */
static int read_body(request_rec *r, arrival_t *arrival, apr_int64_t length_said, apr_bucket_brigade *kept,
                     place_t *place, int predicts)
{
    piece_t *piece = apr_palloc(r->pool, sizeof *piece);
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    apr_file_t *file = NULL;
    apr_time_t began = apr_time_now();
    apr_int64_t got = 0;
    apr_off_t in_file = 0;
    apr_status_t rv;
    int is_whole = 0, is_in_piece = has_piece(piece, length_said, r);

    while (!is_whole) {
        rv = ap_get_brigade(r->input_filters, bb, AP_MODE_READBYTES, APR_BLOCK_READ, READ_BYTES);
        if (rv != APR_SUCCESS)
            return why_not(r, rv);
        if (APR_BRIGADE_EMPTY(bb))
            return why_not(r, APR_EOF);
        while (!APR_BRIGADE_EMPTY(bb)) {
            apr_bucket *each = APR_BRIGADE_FIRST(bb);
            const char *data;
            apr_size_t length;
            if (APR_BUCKET_IS_EOS(each)) {
                is_whole = 1;
                break;
            }
            if (AP_BUCKET_IS_ERROR(each))
                return ((ap_bucket_error *)each->data)->status;
            if (APR_BUCKET_IS_METADATA(each)) {
                apr_bucket_delete(each);
                continue;
            }
            rv = apr_bucket_read(each, &data, &length, APR_BLOCK_READ);
            if (rv != APR_SUCCESS)
                return why_not(r, rv);
            if (!is_in_piece && file == NULL && got + (apr_int64_t)length > ARRIVALS_IN_MEMORY &&
                (rv = open_file(&file, arrival->bytes, r)) != APR_SUCCESS)
                return cannot_keep(r, rv);
            /* The server hands over no more than was said. */
            if (is_in_piece && got + (apr_int64_t)length > (apr_int64_t)piece->size)
                return HTTP_BAD_REQUEST;
            if (is_in_piece)
                memcpy(piece->data + got, data, length);
            else if (file == NULL)
                rv = apr_brigade_write(kept, NULL, NULL, data, length);
            else if ((rv = apr_file_write_full(file, data, length, NULL)) == APR_SUCCESS)
                in_file += length;
            if (rv != APR_SUCCESS)
                return cannot_keep(r, rv);
            got += length;
            arrival->read = (apr_uint32_t)got;
            /* What its length announced is counted already. */
            if (got > (apr_int64_t)arrival->bytes) {
                apr_atomic_add32(&kib_in_all, (apr_uint32_t)((got >> 10) - (arrival->bytes >> 10)));
                arrival->bytes = (apr_uint32_t)got;
                if (got > ARRIVALS_IN_MEMORY && !has_room(got, 0))
                    return HTTP_SERVICE_UNAVAILABLE;
            }
            apr_bucket_delete(each);
        }
        if (is_in_piece && got >= BEGINNING && place->beginning == 0) {
            place->beginning = hash_of_beginning(piece->data, length_said);
            if (predicts && !is_whole && got < length_said && is_in_vain(r, place))
                return DONE;
        }
        if (!is_whole && is_all_lines(r, got)) {
            ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "a body is not read: its chunks say more than they hold");
            return HTTP_BAD_REQUEST;
        }
        if (!is_whole && is_too_slow(began, got))
            return HTTP_REQUEST_TIME_OUT;
    }
    if (is_in_piece && got > 0) {
        APR_BRIGADE_INSERT_TAIL(kept, apr_bucket_pool_create(piece->data, (apr_size_t)got, r->pool,
                                                             r->connection->bucket_alloc));
        place->body = hash_of(piece->data, (apr_size_t)got);
    }
    if (file != NULL) {
        apr_bucket *last = apr_brigade_insert_file(kept, file, 0, in_file, r->pool);
        /* Nobody else may cut it short, but a map of it would count as ours. */
        apr_bucket_file_enable_mmap(last, 0);
    }
    APR_BRIGADE_INSERT_TAIL(kept, apr_bucket_eos_create(r->connection->bucket_alloc));
    return OK;
}

static int has_body(request_rec *r, apr_int64_t *length)
{
    const char *text = apr_table_get(r->headers_in, "Content-Length");
    *length = text ? apr_atoi64(text) : 0;
    /* A length that is no number is found out when the body is read. */
    return apr_table_get(r->headers_in, "Transfer-Encoding") != NULL || (text && strcmp(text, "0") != 0);
}

/* ── What all children share ─────────────────────────────────────────────────────────────────────────────────────────── */

static apr_status_t forget_paces(void *unused)
{
    munmap(paces, sizeof *paces);
    paces = NULL;
    return APR_SUCCESS;
}

static int share_paces(apr_pool_t *p, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    void *mapped = MAP_FAILED;
    if (settings.refusals)
        mapped = mmap(NULL, sizeof *paces, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
        return OK;
    paces = mapped;
    apr_pool_cleanup_register(p, NULL, forget_paces, apr_pool_cleanup_null);
    return OK;
}

/* ── Places ─────────────────────────────────────────────────────────────────────────────────────────────────────── */

static apr_status_t forget_passed(void *unused)
{
    munmap(passed, children * sizeof *passed);
    passed = NULL;
    return APR_SUCCESS;
}

static int share_passed(apr_pool_t *p, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    void *mapped;
    if (settings.places == NULL || ap_mpm_query(AP_MPMQ_HARD_LIMIT_DAEMONS, &children) != APR_SUCCESS)
        return OK;
    mapped = mmap(NULL, children * sizeof *passed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
        return OK;
    passed = mapped;
    apr_pool_cleanup_register(p, NULL, forget_passed, apr_pool_cleanup_null);
    return OK;
}

/* In the parent. What a child held that was killed, or crashed, would be taken for ever. */
static void clear_passed(server_rec *s, pid_t pid, ap_generation_t generation, int slot, mpm_child_status state)
{
    int n;
    for (n = 0; passed && state != MPM_CHILD_STARTED && n < children; n++)
        if (apr_atomic_read32(&passed[n].pid) == (apr_uint32_t)pid)
            memset(&passed[n], 0, sizeof *passed);
}

static void *map_file(const char *path, apr_size_t *size, int protection)
{
    struct stat about;
    void *mapped = MAP_FAILED;
    int file;
    if (path == NULL || (file = open(path, (protection & PROT_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW)) < 0)
        return NULL;
    if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0) {
        *size = (apr_size_t)about.st_size;
        mapped = mmap(NULL, *size, protection, MAP_SHARED, file, 0);
    }
    close(file);
    return mapped == MAP_FAILED ? NULL : mapped;
}

static void begin_child(apr_pool_t *p, server_rec *s)
{
    apr_size_t size = 0;
    int n;
    APR_RING_INIT(&waiters, caller_t, link);
    for (n = 0; passed && own_passed == NULL && n < children; n++)
        if (apr_atomic_cas32(&passed[n].pid, (apr_uint32_t)getpid(), 0) == 0)
            own_passed = &passed[n];
    rooms = map_file(settings.places, &size, PROT_READ);
    rooms_in_all = size / sizeof *rooms;
    answered = map_file(settings.answered, &size, PROT_READ | PROT_WRITE);
    answered_bits = answered ? (size - ANSWERED_HEAD) * 4 : 0;
    if (answered && (size <= ANSWERED_HEAD || answered_bits & (answered_bits - 1)))
        answered = NULL;
}

/* How many addresses have a place. Counted now and then: a number that is kept would be wrong for ever after a crash. */
static int addresses(void)
{
    static apr_uint32_t counted_at, found = 1;
    apr_uint32_t now = (apr_uint32_t)apr_time_as_msec(apr_time_now());
    int n, address, has_place, count = 0;
    if (now - apr_atomic_read32(&counted_at) < COUNT_MS)
        return (int)apr_atomic_read32(&found);
    apr_atomic_set32(&counted_at, now);
    for (address = 0; address < COUNTERS; address++) {
        for (n = has_place = 0; n < children && !has_place; n++)
            has_place = passed[n].of_address[address] != 0;
        count += has_place;
    }
    apr_atomic_set32(&found, (apr_uint32_t)count);
    return count;
}

/* Whether one more of this address would wait for too long, as the app has it. An address that has less than its share of
 * the places finds some more: one that takes all there are keeps nobody else out. */
static int is_full(apr_sockaddr_t *address)
{
    apr_size_t at = counter_of(own_passed->of_address, address) - own_passed->of_address, n;
    apr_uint32_t all = 0, modest = 0, in_all = 0, own = 0;
    int callers;
    for (n = 0; n < rooms_in_all; n++)
        all += rooms[n].all, modest += rooms[n].modest;
    for (n = 0; n < (apr_size_t)children; n++)
        in_all += apr_atomic_read32(&passed[n].passed), own += apr_atomic_read32(&passed[n].of_address[at]);
    /* No process has said anything yet. */
    if (all == 0 || in_all < all)
        return 0;
    callers = addresses() + (own == 0);
    return in_all >= modest || (own + 1) * (callers > 2 ? callers : 2) > in_all + 1;
}

static apr_status_t leave_place(void *data)
{
    place_t *place = data;
    if (place->of_address) {
        apr_atomic_dec32(place->of_address);
        apr_atomic_dec32(&place->by->passed);
        place->of_address = NULL;
    }
    return APR_SUCCESS;
}

/* The app is done with it when its answer has been written; it may be on its way to the caller for long. */
static apr_status_t watch_end(ap_filter_t *f, apr_bucket_brigade *bb)
{
    place_t *place = f->ctx;
    apr_bucket *each;
    for (each = APR_BRIGADE_FIRST(bb); each != APR_BRIGADE_SENTINEL(bb); each = APR_BUCKET_NEXT(each))
        if (APR_BUCKET_IS_EOS(each)) {
            if (f->r->status == HTTP_OK) {
                remember(place->length);
                remember(place->beginning);
                remember(place->body);
            }
            leave_place(place);
            ap_remove_output_filter(f);
            break;
        }
    return ap_pass_brigade(f->next, bb);
}

static int is_computed(request_rec *r)
{
    const char *said = apr_table_get(r->headers_in, "Cache-Control");
    if (said == NULL)
        said = apr_table_get(r->headers_in, "Pragma");
    return said && settings.computed && ap_regexec(settings.computed, said, 0, NULL, 0) == 0;
}

/* ── Refusals for want of a place ───────────────────────────────────────────────────────────────────────────────── */

/* How many bytes of this connection wait in the kernel. */
static int waiting_bytes(int socket)
{
    int bytes = 0;
    return ioctl(socket, FIONREAD, &bytes) == 0 ? bytes : 0;
}

/* Whether all of the body has come to a connection that stays: by way of the server's filters, which know where it ends. */
static int is_read_by_filters(request_rec *r)
{
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    int is_whole = 0;
    while (!is_whole &&
           ap_get_brigade(r->input_filters, bb, AP_MODE_READBYTES, APR_NONBLOCK_READ, READ_BYTES) == APR_SUCCESS &&
           !APR_BRIGADE_EMPTY(bb)) {
        is_whole = APR_BUCKET_IS_EOS(APR_BRIGADE_LAST(bb));
        apr_brigade_cleanup(bb);
    }
    apr_brigade_destroy(bb);
    return is_whole;
}

/* The same for one that ends: its filters are asked for all that they have, and then never again. The kernel throws away
 * the rest without handing it over; the filters take 8000 bytes at a time. */
static int is_read_by_kernel(request_rec *r, apr_int64_t left)
{
    conn_rec *c = r->connection;
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, c->bucket_alloc);
    apr_bucket *each;
    apr_os_sock_t socket;
    ssize_t got = 1;
    if (apr_os_sock_get(&socket, ap_get_conn_socket(c)) != APR_SUCCESS ||
        ap_get_brigade(c->input_filters, bb, AP_MODE_EXHAUSTIVE, APR_NONBLOCK_READ, 0) != APR_SUCCESS)
        return 0;
    /* The last is the socket, of no length. */
    for (each = APR_BRIGADE_FIRST(bb); each != APR_BRIGADE_SENTINEL(bb); each = APR_BUCKET_NEXT(each))
        if (each->length != (apr_size_t)-1)
            left -= (apr_int64_t)each->length;
    while (left > 0 && got > 0) {
        do
            got = recv(socket, NULL, (size_t)left, MSG_TRUNC | MSG_DONTWAIT);
        while (got < 0 && errno == EINTR);
        left -= got > 0 ? got : 0;
    }
    return left <= 0;
}

/* Has the kernel throw away so many bytes without handing them over. False where they do not come soon. */
static int is_dropped(int socket, apr_int64_t bytes)
{
    int waits = DROP_WAITS;
    ssize_t got;
    while (bytes > 0) {
        got = recv(socket, NULL, (size_t)bytes, MSG_TRUNC | MSG_DONTWAIT);
        bytes -= got > 0 ? got : 0;
        if (got == 0 || (got < 0 && errno != EINTR && (errno != EAGAIN || waits-- == 0 || !more_comes(socket))))
            return 0;
    }
    return 1;
}

/* The same for a large one on a connection that stays: what no filter can have read is thrown away by the kernel, and the
 * end is taken from the connection. Nobody asks this request's own filter, which counts, for more. */
static int is_read_by_both(request_rec *r, apr_int64_t left)
{
    conn_rec *c = r->connection;
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, c->bucket_alloc);
    apr_off_t got;
    apr_os_sock_t socket;
    if (apr_os_sock_get(&socket, ap_get_conn_socket(c)) != APR_SUCCESS || !is_dropped(socket, left - READ_EARLY_BYTES))
        return 0;
    for (left = READ_EARLY_BYTES; left > 0; left -= got) {
        if (ap_get_brigade(c->input_filters, bb, AP_MODE_READBYTES, APR_NONBLOCK_READ, left) != APR_SUCCESS ||
            apr_brigade_length(bb, 1, &got) != APR_SUCCESS || got <= 0)
            return 0;
        apr_brigade_cleanup(bb);
    }
    return 1;
}

/* The server itself ends a connection with each 503, since it may not have read all of the request. Here that is known:
 * who may ask on by the same connection costs half of who comes by a new one. */
static int may_go_on(request_rec *r)
{
    int state;
    if (ap_mpm_query(AP_MPMQ_MPM_STATE, &state) != APR_SUCCESS || state == AP_MPMQ_STOPPING)
        return 0;
    return r->proto_num >= HTTP_VERSION(1, 1) && r->server->keep_alive && r->connection->keepalive != AP_CONN_CLOSE &&
           !ap_find_token(r->pool, apr_table_get(r->headers_in, "Connection"), "close");
}

static int add_line(void *lines, const char *name, const char *value)
{
    apr_brigade_putstrs(lines, NULL, NULL, name, ": ", value, CRLF, NULL);
    return 1;
}

/* In the place of the server's own filter, which would say that the connection ends, and end it. Its context: not NULL
 * where it stays. */
static apr_status_t write_head(ap_filter_t *f, apr_bucket_brigade *bb)
{
    request_rec *r = f->r;
    apr_bucket_brigade *head = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    char date[APR_RFC822_DATE_LEN];
    const char *server = ap_get_server_banner();

    ap_remove_output_filter(f);
    r->connection->keepalive = f->ctx ? AP_CONN_KEEPALIVE : AP_CONN_CLOSE;
    r->headers_out = apr_table_overlay(r->pool, r->err_headers_out, r->headers_out);
    apr_table_clear(r->err_headers_out);
    apr_table_setn(r->headers_out, "Content-Type", r->content_type);
    if (f->ctx == NULL)
        apr_table_setn(r->headers_out, "Connection", "close");
    ap_recent_rfc822_date(date, r->request_time);
    apr_brigade_putstrs(head, NULL, NULL, "HTTP/1.1 ", ap_get_status_line(r->status), CRLF "Date: ", date, CRLF, NULL);
    if (server && *server)
        add_line(head, "Server", server);
    apr_table_do(add_line, head, r->headers_out, NULL);
    apr_brigade_puts(head, NULL, NULL, CRLF);
    APR_BRIGADE_PREPEND(bb, head);
    return ap_pass_brigade(f->next, bb);
}

/* Whether all of the body is here. What is is thrown away; nobody waits for more. To read it would ask for it, if it is
 * not to be sent before we say so. */
static int is_all_here(request_rec *r, apr_int64_t length)
{
    caller_t *caller = ap_get_module_config(r->connection->conn_config, &arrivals_module);
    arrival_t *arrival = ap_get_module_config(r->request_config, &arrivals_module);
    apr_int64_t left = arrival ? length - arrival->read : length;
    if (length <= 0 || length > SMALL_BYTES || r->expecting_100 || apr_table_get(r->headers_in, "Transfer-Encoding"))
        return 0;
    if (is_tls(r->connection))
        return is_read_by_filters(r);
    if (!may_go_on(r))
        return is_read_by_kernel(r, left);
    return left > READ_EARLY_BYTES && !has_ahead(caller) ? is_read_by_both(r, left) : is_read_by_filters(r);
}

/* `is_read`: so is the body. A stream of HTTP/2 is a request of its own, and nothing here is for it. */
static void settle_connection(request_rec *r, apr_int64_t length, int is_read)
{
    conn_rec *c = r->connection;
    caller_t *caller = ap_get_module_config(c->conn_config, &arrivals_module);
    ap_filter_t *f, *next;
    int stays;

    if (c->master || caller == NULL) {
        c->keepalive = AP_CONN_CLOSE;
        return;
    }
    caller->is_done = is_read || is_all_here(r, length);
    stays = caller->is_done && may_go_on(r);
    c->keepalives += stays;
    for (f = r->output_filters; f; f = next) {
        next = f->next;
        if (f->frec == ap_http_header_filter_handle)
            ap_remove_output_filter(f);
    }
    ap_add_output_filter(REFUSAL_FILTER, stays ? caller : NULL, r, c);
}

/* As request-id.conf has it, which may not have spoken yet. */
static void keep_id(request_rec *r)
{
    const char *id = apr_table_get(r->headers_in, ID_HEADER), *own = apr_table_get(r->subprocess_env, "UNIQUE_ID");
    size_t length = id ? strlen(id) : 0, n = 0;
    while (n < length && (apr_isalnum(id[n]) || strchr("@._-", id[n])))
        n++;
    if (own && (length < 8 || length > 64 || n < length))
        apr_table_setn(r->headers_in, ID_HEADER, own);
}

/* The same words as the app's. They are sent by way of no ErrorDocument, which would ask more of Apache than all else. */
static int refuse_for_room(request_rec *r, const refusal_t *refusal, apr_int64_t length, int is_read)
{
    const char *wrong = NULL, *document;
    keep_id(r);
    document = ap_expr_str_exec(r, refusal->document, &wrong);
    if (wrong)
        return fail(r, HTTP_SERVICE_UNAVAILABLE);
    r->status = HTTP_SERVICE_UNAVAILABLE;
    apr_table_setn(r->err_headers_out, "Retry-After", refusal->retry_after);
    apr_table_setn(r->err_headers_out, "Cache-Control", "no-store");
    apr_table_setn(r->notes, NOTE_REFUSED, refusal->retry_after);
    ap_set_content_type(r, "application/problem+json");
    ap_set_content_length(r, (apr_off_t)strlen(document));
    settle_connection(r, length, is_read);
    ap_rputs(document, r);
    return OK;
}

/* Nothing of it can come any more that would have the kernel reset the connection before the answer is read: it may be
 * closed at once, where the server would be woken twice more for it. */
static int close_at_once(conn_rec *c)
{
    caller_t *caller = c->master ? NULL : ap_get_module_config(c->conn_config, &arrivals_module);
    apr_os_sock_t socket;
    /* From here on the number of its socket may be another's. */
    if (caller)
        waits_no_more(caller);
    if (caller == NULL || !caller->is_done || c->aborted || is_tls(c) || ap_get_conn_socket(c) == NULL ||
        apr_os_sock_get(&socket, ap_get_conn_socket(c)) != APR_SUCCESS)
        return OK;
    ap_flush_conn(c);
    c->aborted = waiting_bytes(socket) == 0;
    return OK;
}

static apr_uint64_t hash_of_length(apr_int64_t length)
{
    return length > 0 ? hash_of((const char *)&length, sizeof length) : 0;
}

/* Whether what is known of a body already says that none like it was answered: to read the rest costs more than all else. */
static int is_new(request_rec *r, apr_int64_t length)
{
    apr_bucket_brigade *bb;
    char *seen;
    apr_size_t size = BEGINNING;
    int is_seen;
    /* A stream that is answered while it sends would be reset by the server, and many callers then see no answer. */
    if (r->connection->master && length > 0 && length <= SMALL_BYTES)
        return 0;
    if (is_computed(r) || !is_known(hash_of_length(length)))
        return 1;
    /* So much is not held back by a rest: of who should have one it is not read in the hope of a kept answer. */
    if (length > REST_BYTES && paces && !is_shared(r->connection) && rest_ms(ahead_ms(r->useragent_addr, 0)) > 0)
        return 1;
    /* Only where it came in one piece the beginning was noted. */
    if (length < BEGINNING || length > SMALL_BYTES)
        return 0;
    bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    seen = apr_palloc(r->pool, size);
    is_seen = ap_get_brigade(r->input_filters, bb, AP_MODE_SPECULATIVE, APR_NONBLOCK_READ, BEGINNING) == APR_SUCCESS &&
              apr_brigade_flatten(bb, seen, &size) == APR_SUCCESS && size == BEGINNING;
    apr_brigade_destroy(bb);
    return is_seen && !is_known(hash_of_beginning(seen, length));
}

/* All of it is here. Whether there was a place, or its answer is kept, and costs nothing. */
static int take_place(request_rec *r, apr_int64_t length, place_t *place)
{
    int may_be_kept;
    place->length = hash_of_length(length);
    may_be_kept = !is_computed(r) && is_known(place->body ? place->body : place->length);
    if (may_be_kept)
        apr_table_setn(r->subprocess_env, MAY_BE_KEPT, "1");
    if (own_passed == NULL)
        return 1;
    if (!may_be_kept && is_full(r->useragent_addr))
        return 0;
    place->by = own_passed;
    place->of_address = counter_of(own_passed->of_address, r->useragent_addr);
    apr_atomic_inc32(&place->by->passed);
    apr_atomic_inc32(place->of_address);
    apr_pool_cleanup_register(r->pool, place, leave_place, apr_pool_cleanup_null);
    ap_add_output_filter(PLACE_FILTER, place, r, r->connection);
    return 1;
}

/* ── Turns ──────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* Python's lock is for one thread at a time, and each that waits for it is woken in vain again and again. So few requests
 * are handed over at once; the others wait here, first come, first served. */
static struct {
    pthread_mutex_t lock;
    int taken;
    line_t *first, *last;
    apr_time_t ended_at;       /* when the last turn ended */
    apr_time_t none_until;     /* until then nobody waits */
} turns = {PTHREAD_MUTEX_INITIALIZER, 0, NULL, NULL, 0, 0};

static apr_status_t end_turn(void *data)
{
    int *has_turn = data;
    line_t *next;
    if (!*has_turn)
        return APR_SUCCESS;
    *has_turn = 0;
    pthread_mutex_lock(&turns.lock);
    turns.ended_at = apr_time_now();
    if ((next = turns.first)) {
        turns.first = next->next;
        next->has_come = 1;
        pthread_cond_signal(&next->comes);
    }
    else
        turns.taken--;
    pthread_mutex_unlock(&turns.lock);
    return APR_SUCCESS;
}

static void leave_line(line_t *own)
{
    line_t **each = &turns.first, *before = NULL;
    for (; *each != own; each = &(*each)->next)
        before = *each;
    *each = own->next;
    if (turns.last == own)
        turns.last = before;
}

/* Whether nobody waits for a turn at the moment. One of later was noted before the clock was set back. */
static int has_no_turns(apr_time_t now)
{
    return now < turns.none_until && turns.none_until <= now + apr_time_from_msec(NO_TURNS_MS);
}

/* False where the turns of the others take too long. */
static int wait_in_line(apr_time_t now)
{
    line_t own = {NULL, PTHREAD_COND_INITIALIZER, 0};
    apr_time_t moved_at = now, end;
    struct timespec until;
    if (turns.first)
        turns.last->next = &own;
    else
        turns.first = &own;
    turns.last = &own;
    while (!own.has_come && !has_no_turns(now)) {
        end = now + apr_time_from_msec(settings.long_turn_ms);
        until.tv_sec = apr_time_sec(end);
        until.tv_nsec = apr_time_usec(end) * 1000;
        pthread_cond_timedwait(&own.comes, &turns.lock, &until);
        now = apr_time_now();
        if (turns.ended_at > moved_at)
            moved_at = turns.ended_at;
        if (!own.has_come && now - moved_at >= apr_time_from_msec(settings.long_turn_ms))
            turns.none_until = now + apr_time_from_msec(NO_TURNS_MS);
    }
    if (!own.has_come)
        leave_line(&own);
    return own.has_come;
}

/* The app has computed its answer. */
static apr_status_t watch_turn(ap_filter_t *f, apr_bucket_brigade *bb)
{
    end_turn(f->ctx);
    ap_remove_output_filter(f);
    return ap_pass_brigade(f->next, bb);
}

static void take_turn(request_rec *r)
{
    apr_time_t now;
    int *has_turn;
    if (settings.turns == 0 || r->handler == NULL || strcmp(r->handler, WEB_HANDLER))
        return;
    now = apr_time_now();
    has_turn = apr_pcalloc(r->pool, sizeof *has_turn);
    pthread_mutex_lock(&turns.lock);
    if (turns.taken < settings.turns)
        *has_turn = ++turns.taken;
    else if (!has_no_turns(now))
        *has_turn = wait_in_line(now);
    pthread_mutex_unlock(&turns.lock);
    if (*has_turn) {
        apr_pool_cleanup_register(r->pool, has_turn, end_turn, apr_pool_cleanup_null);
        ap_add_output_filter(TURN_FILTER, has_turn, r, r->connection);
    }
}

/* Before anybody looks for a file, for its rights and for who is to answer: ten calls of the kernel for a refusal. What the
 * server has not found the settings of here, such as an address that it rewrites, is refused later in the same words. */
static int refuse_early(request_rec *r)
{
    struct ap_conf_vector_t *before = r->per_dir_config;
    const refusal_t *refusal;
    apr_int64_t length;
    int status = DECLINED;
    if (r->main || r->prev || r->method_number != M_POST || own_passed == NULL || !has_body(r, &length) ||
        r->connection->master)
        return DECLINED;
    if ((ap_get_limit_req_body(r) > 0 && length > ap_get_limit_req_body(r)) || !is_full(r->useragent_addr))
        return DECLINED;
    /* The server has done so already, and forgotten it for now. */
    if (ap_location_walk(r) != OK)
        return DECLINED;
    refusal = ap_get_module_config(r->per_dir_config, &arrivals_module);
    if (refusal->document && is_new(r, length)) {
        ap_run_insert_filter(r);
        status = refuse_for_room(r, refusal, length, 0) == OK ? DONE : HTTP_SERVICE_UNAVAILABLE;
    }
    if (status == DECLINED)
        r->per_dir_config = before;
    return status;
}

/* ── Bodies arrive ──────────────────────────────────────────────────────────────────────────────────────────────── */

/* In front of all handlers: each of them has the whole request. */
static int take_in(request_rec *r)
{
    apr_int64_t length;
    arrival_t *arrival;
    replay_t *body;
    refusal_t *refusal = ap_get_module_config(r->per_dir_config, &arrivals_module);
    place_t *place;
    int status, predicts = refusal->document && r->method_number == M_POST;

    if (r->main || r->prev || settings.folder == NULL)
        return DECLINED;
    if (!has_body(r, &length)) {
        take_turn(r);
        return DECLINED;
    }
    if (ap_get_limit_req_body(r) > 0 && length > ap_get_limit_req_body(r))
        return fail(r, HTTP_REQUEST_ENTITY_TOO_LARGE);
    if (predicts && own_passed && is_full(r->useragent_addr) && is_new(r, length))
        return refuse_for_room(r, refusal, length, 0);
    if (length > ARRIVALS_IN_MEMORY && !has_room(length, length))
        return refuse(r, HTTP_SERVICE_UNAVAILABLE, "the bodies that are arriving have all bytes there are");
    arrival = apr_pcalloc(r->pool, sizeof *arrival);
    if (!is_uncapped(r->useragent_addr)) {
        arrival->of_address = counter_of(bodies, r->useragent_addr);
        if (apr_atomic_inc32(arrival->of_address) >= (apr_uint32_t)settings.max_bodies_an_address) {
            apr_atomic_dec32(arrival->of_address);
            return refuse(r, HTTP_TOO_MANY_REQUESTS, "too many of this address are arriving");
        }
    }
    if (apr_atomic_inc32(&bodies_in_all) >= (apr_uint32_t)settings.max_bodies) {
        has_arrived(arrival);
        return refuse(r, HTTP_SERVICE_UNAVAILABLE, "as many as may are arriving");
    }
    body = apr_pcalloc(r->pool, sizeof *body);
    body->kept = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    apr_pool_cleanup_register(r->pool, arrival, lets_go, apr_pool_cleanup_null);
    if (length > 0) {
        arrival->bytes = (apr_uint32_t)length;
        apr_atomic_add32(&kib_in_all, arrival->bytes >> 10);
    }
    place = apr_pcalloc(r->pool, sizeof *place);
    ap_set_module_config(r->request_config, &arrivals_module, arrival);
    status = read_body(r, arrival, length, body->kept, place, predicts);
    has_arrived(arrival);
    if (status == DONE)
        return refuse_for_room(r, refusal, length, 0);
    if (status != OK)
        return fail(r, status);
    if (predicts && !take_place(r, length, place))
        return refuse_for_room(r, refusal, length, 1);
    ap_add_input_filter(REPLAY_FILTER, body, r, r->connection);
    return DECLINED;
}

/* ── The end ────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The log runs when the answer has been sent, or could not be. */
static int see_who_went(request_rec *r)
{
    request_rec *first = r;
    while (first->prev)
        first = first->prev;
    while (r->next)
        r = r->next;
    /* A stream of HTTP/2 counts as aborted once it has ended, as all of them do. */
    if ((r->connection->aborted && !r->connection->master) || apr_table_get(first->notes, NOTE_GONE)) {
        apr_table_setn(first->notes, NOTE_GONE, "1");
        apr_table_setn(r->notes, NOTE_GONE, "1");
    }
    return DECLINED;
}

static int is_refusal(request_rec *r)
{
    return r->status == HTTP_SERVICE_UNAVAILABLE || r->status == HTTP_TOO_MANY_REQUESTS;
}

/* For how many ms a connection rests that asked at once so often in a row. */
static apr_int32_t longer_each_time(int refused_at_once)
{
    int times = refused_at_once - AT_ONCE_TIMES;
    if (times < 0)
        return 0;
    return times < 4 && REST_MS << times < MOST_REST_MS ? REST_MS << times : MOST_REST_MS;
}

/* As how many refusals one counts: what it has cost. */
static int weight(request_rec *r)
{
    arrival_t *arrival = ap_get_module_config(r->request_config, &arrivals_module);
    int weight = arrival ? 1 + (int)(arrival->read / BYTES_A_REFUSAL) : 1;
    while (r->next)
        r = r->next;
    /* See request-id.conf. */
    return apr_table_get(r->notes, "cask-answered") || apr_table_get(r->notes, "cask-answered-too") ? weight + BY_APP - 1
                                                                                                   : weight;
}

/* Callers who ask again at once when they are refused would have the processors to themselves, thousands of times a
 * second. The refusal has been sent; what waits is their next request. */
static int count_refusal(request_rec *r)
{
    conn_rec *c = r->connection;
    caller_t *caller = ap_get_module_config(c->conn_config, &arrivals_module);
    apr_int32_t wait, own_wait;
    int refusals = weight(r);
    while (r->next)
        r = r->next;
    if (paces == NULL)
        return DECLINED;
    if (!is_refusal(r)) {
        if (caller)
            caller->refused_at = caller->asked_at = 0;
        return DECLINED;
    }
    wait = rest_ms(ahead_ms(r->useragent_addr, refusals));
    if (caller == NULL || is_shared(c))
        return DECLINED;
    if (caller->asked_at == 0)
        caller->asked_at = r->request_time;
    if (caller->refused_at && caller->asked_at - caller->refused_at < apr_time_from_msec(AT_ONCE_MS))
        caller->refused_at_once++;
    else
        caller->refused_at_once = 0;
    own_wait = longer_each_time(caller->refused_at_once);
    wait = wait > own_wait ? wait : own_wait;
    caller->refused_at = apr_time_now();
    caller->rest_until = caller->refused_at + apr_time_from_msec(wait);
    caller->asked_at = 0;
    return DECLINED;
}

/* Who comes by a proxy is known only when its request is, and the proxy has other connections: the refusal itself waits,
 * of one whose address gets more of them than are free. It keeps a thread, so not all do. */
static apr_status_t hold_back(ap_filter_t *f, apr_bucket_brigade *bb)
{
    apr_int32_t wait;
    ap_remove_output_filter(f);
    if (is_refusal(f->r) && (wait = rest_of(f->r->useragent_addr)) > 0) {
        if (apr_atomic_inc32(&held_back) < (apr_uint32_t)settings.max_held_back)
            apr_sleep(apr_time_from_msec(wait));
        apr_atomic_dec32(&held_back);
    }
    return ap_pass_brigade(f->next, bb);
}

/* The edge has seen to its callers itself, but to those of a proxy before it. */
static void watch_refusal(request_rec *r)
{
    conn_rec *c = r->connection;
    int is_edge = settings.edge && strcmp(settings.edge, c->client_ip) == 0;
    if (paces && !r->main && is_shared(c) && (!is_edge || apr_table_get(r->headers_in, BY_HEADER)))
        ap_add_output_filter(PACE_FILTER, NULL, r, c);
}

/* ── Directives ─────────────────────────────────────────────────────────────────────────────────────────────────── */

static const char *set_number(cmd_parms *cmd, void *unused, const char *text)
{
    char *end;
    apr_int64_t number = apr_strtoi64(text, &end, 10);
    if (*end || number < 0)
        return apr_pstrcat(cmd->pool, cmd->cmd->name, " needs a number, found ", text, NULL);
    if (cmd->info == &settings.max_bytes)
        settings.max_bytes = number;
    else
        *(int *)cmd->info = (int)number;
    return NULL;
}

/* A number and what stands behind it in the settings. */
static const char *set_two(cmd_parms *cmd, void *unused, const char *number, const char *ms)
{
    int *first = cmd->info;
    const char *wrong = set_number(cmd, unused, number);
    cmd->info = first + 1;
    return wrong ? wrong : set_number(cmd, unused, ms);
}

static const char *set_folder(cmd_parms *cmd, void *unused, const char *path)
{
    settings.folder = path;
    return NULL;
}

static const char *set_edge(cmd_parms *cmd, void *unused, const char *address)
{
    settings.edge = address;
    return NULL;
}

static const char *set_path(cmd_parms *cmd, void *unused, const char *path)
{
    *(const char **)cmd->info = path;
    return NULL;
}

static const char *set_computed(cmd_parms *cmd, void *unused, const char *pattern)
{
    settings.computed = ap_pregcomp(cmd->pool, pattern, AP_REG_ICASE | AP_REG_EXTENDED);
    return settings.computed ? NULL : apr_pstrcat(cmd->pool, "ArrivalsComputed cannot read ", pattern, NULL);
}

static const char *set_refusal(cmd_parms *cmd, void *data, const char *retry_after, const char *document)
{
    refusal_t *refusal = data;
    const char *wrong = NULL;
    refusal->retry_after = retry_after;
    refusal->document = ap_expr_parse_cmd(cmd, document, AP_EXPR_FLAG_STRING_RESULT, &wrong, NULL);
    return wrong ? apr_pstrcat(cmd->pool, "ArrivalsRefusal: ", wrong, NULL) : NULL;
}

static void *create_refusal(apr_pool_t *p, char *where)
{
    return apr_pcalloc(p, sizeof(refusal_t));
}

static void *merge_refusals(apr_pool_t *p, void *outer, void *inner)
{
    return ((refusal_t *)inner)->document ? inner : outer;
}

static const char *add_uncapped(cmd_parms *cmd, void *unused, const char *network)
{
    apr_ipsubnet_t *subnet;
    char *address = apr_pstrdup(cmd->temp_pool, network), *mask = strchr(address, '/');
    if (mask)
        *mask++ = '\0';
    if (apr_ipsubnet_create(&subnet, address, mask, cmd->pool) != APR_SUCCESS)
        return apr_pstrcat(cmd->pool, "ArrivalsUncapped needs an address or a network, found ", network, NULL);
    if (settings.uncapped == NULL)
        settings.uncapped = apr_array_make(cmd->pool, 4, sizeof(apr_ipsubnet_t *));
    APR_ARRAY_PUSH(settings.uncapped, apr_ipsubnet_t *) = subnet;
    return NULL;
}

static const command_rec directives[] = {
    AP_INIT_TAKE1("ArrivalsFolder", set_folder, NULL, RSRC_CONF, "where bodies wait; on a disk, not in memory"),
    AP_INIT_TAKE1("ArrivalsMaxBytes", set_number, &settings.max_bytes, RSRC_CONF, "of all bodies of a child"),
    AP_INIT_TAKE1("ArrivalsMaxBodies", set_number, &settings.max_bodies, RSRC_CONF, "arriving at once in a child"),
    AP_INIT_TAKE1("ArrivalsMaxBodiesAnAddress", set_number, &settings.max_bodies_an_address, RSRC_CONF, "of these"),
    AP_INIT_TAKE1("ArrivalsMaxWaitingAnAddress", set_number, &settings.max_waiting, RSRC_CONF, "without a head"),
    AP_INIT_TAKE1("ArrivalsMaxHeadBytes", set_number, &settings.max_head_bytes, RSRC_CONF, "of one head"),
    AP_INIT_TAKE1("ArrivalsHeadSeconds", set_number, &settings.head_seconds, RSRC_CONF, "until a head is whole"),
    AP_INIT_TAKE1("ArrivalsMaxHeldBack", set_number, &settings.max_held_back, RSRC_CONF, "refusals, by a child"),
    AP_INIT_TAKE2("ArrivalsTurns", set_two, &settings.turns, RSRC_CONF, "requests without a body of a child, and ms"),
    AP_INIT_TAKE2("ArrivalsStaying", set_two, &settings.max_staying, RSRC_CONF, "threads of a child, and ms"),
    AP_INIT_TAKE1("ArrivalsRefusals", set_number, &settings.refusals, RSRC_CONF, "a second, to an address"),
    AP_INIT_TAKE1("ArrivalsPressedRate", set_number, &settings.pressed_rate, RSRC_CONF, "bytes a second, when full"),
    AP_INIT_ITERATE("ArrivalsUncapped", add_uncapped, NULL, RSRC_CONF, "networks of proxies"),
    AP_INIT_TAKE1("ArrivalsEdge", set_edge, NULL, RSRC_CONF, "the address of the edge before a container"),
    AP_INIT_TAKE1("ArrivalsPlaces", set_path, &settings.places, RSRC_CONF, "what the app says that it takes"),
    AP_INIT_TAKE1("ArrivalsAnswered", set_path, &settings.answered, RSRC_CONF, "a table of bodies"),
    AP_INIT_TAKE1("ArrivalsComputed", set_computed, NULL, RSRC_CONF, "Cache-Control of who takes no kept answer"),
    AP_INIT_TAKE2("ArrivalsRefusal", set_refusal, NULL, ACCESS_CONF, "Retry-After and document, without a place"),
    {NULL}};

static int forget(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    memset(&settings, 0, sizeof settings);
    return OK;
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_pre_config(forget, NULL, NULL, APR_HOOK_MIDDLE);
    /* After mod_ssl's, which says whether the connection is its. */
    ap_hook_pre_connection(meet, NULL, NULL, APR_HOOK_LAST);
    ap_hook_process_connection(wait_for_head, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_create_request(head_begins, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_read_request(head_is_read, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_post_config(share_passed, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(share_paces, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(begin_child, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_status(clear_passed, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_translate_name(say_why, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_fixups(meet_conditions, NULL, NULL, APR_HOOK_LAST);
    ap_hook_map_to_storage(refuse_early, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_pre_close_connection(close_at_once, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_handler(take_in, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_log_transaction(see_who_went, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_log_transaction(count_refusal, NULL, NULL, APR_HOOK_REALLY_LAST);
    ap_hook_log_transaction(note_answer, NULL, NULL, APR_HOOK_REALLY_LAST);
    ap_hook_insert_filter(watch_refusal, NULL, NULL, APR_HOOK_LAST);
    ap_hook_insert_error_filter(watch_refusal, NULL, NULL, APR_HOOK_LAST);
    ap_register_output_filter(PACE_FILTER, hold_back, NULL, AP_FTYPE_CONTENT_SET);
    ap_register_output_filter(TURN_FILTER, watch_turn, NULL, AP_FTYPE_CONTENT_SET);
    ap_register_output_filter(PLACE_FILTER, watch_end, NULL, AP_FTYPE_CONTENT_SET);
    ap_register_output_filter(REFUSAL_FILTER, write_head, NULL, AP_FTYPE_PROTOCOL);
    ap_register_input_filter(HEAD_FILTER, count_head, NULL, AP_FTYPE_CONNECTION);
    ap_register_input_filter(REPLAY_FILTER, replay, NULL, AP_FTYPE_CONTENT_SET);
}

module AP_MODULE_DECLARE_DATA arrivals_module = {
    STANDARD20_MODULE_STUFF, create_refusal, merge_refusals, NULL, NULL, directives, register_hooks, AP_MODULE_FLAG_NONE};
