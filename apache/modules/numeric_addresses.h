/* Included first in each file of mod_wsgi, by the compiler's option -include (docs/decisions/0138-fewer-waits.md).
 *
 * For each request mod_wsgi's daemon reads the address at which it came in, and for any family of addresses. For that
 * the C library first asks the kernel for all addresses of this machine, by a netlink socket and eight calls
 * (getaddrinfo(3), AI_ADDRCONFIG). An address in digits tells its family by itself.
 */
#ifndef CASK_NUMERIC_ADDRESSES_H
#define CASK_NUMERIC_ADDRESSES_H

#include <string.h>

#include "apr_network_io.h"

/* What requirements/install.sh looks for in the built module. */
__attribute__((used)) static const char cask_numeric_addresses[] = "cask: numeric addresses";

static inline int cask_family_of(const char *host, int family)
{
    if (family != APR_UNSPEC || host == NULL || *host == '\0') return family;
    if (strchr(host, ':') != NULL) return APR_INET6;
    return host[strspn(host, "0123456789.")] == '\0' ? APR_INET : family;
}

#define apr_sockaddr_info_get(found, host, family, port, flags, pool) \
    apr_sockaddr_info_get(found, host, cask_family_of(host, family), port, flags, pool)

#endif
