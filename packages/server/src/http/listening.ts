/**
 * Begins to listen, for devices and for admins alike. An error of the system becomes a sentence that names the place, the cause, and what to
 * do, with the name by which the place was configured.
 */
import { isUnspecified, localUrl, SealpostError, systemCode } from '@sealpost/protocol'
import type { FastifyInstance } from 'fastify'
import { isIPv6 } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { Config } from '../config/config.ts'

/** `names`: the flag or variable that gave the host, and the port. */
export type Place = { host: string; port: number; names: { host: string; port: string } }

/** The place of the listener of devices. */
export function placeOf({ host, port, names }: Pick<Config, 'host' | 'port' | 'names'>): Place {
  return { host, port, names: { host: names.SEALPOST_HOST, port: names.SEALPOST_PORT } }
}

/** The place of the listener of admins. */
export function adminPlaceOf({ host, port }: { host: string; port: number }, { names }: Pick<Config, 'names'>): Place {
  return { host, port, names: { host: names.SEALPOST_ADMIN_HOST, port: names.SEALPOST_ADMIN_PORT } }
}

/** `url`: where this machine reaches it. Throws `port_in_use`, `invalid_config`, `disk`. */
export async function listen(http: FastifyInstance, place: Place): Promise<{ url: string; port: number }> {
  const { host, port } = place
  try {
    await http.listen({ host, port })
  } catch (cause) {
    throw listenError(place, cause)
  }
  const bound = http.server.address()
  if (bound === null || typeof bound === 'string') throw new TypeError('not listening on a port')
  return { url: reachedUrl(bound.address, bound.port), port: bound.port }
}

/** The URL by which this machine reaches what listens at a name or an address. `::` takes IPv4 too, where there is no IPv6 as in many a container. */
export function reachedUrl(host: string, port: number): string {
  const url = localUrl(host, port)
  return isUnspecified(host) && url.includes('[::1]') && !hasLoopback6() ? localUrl('127.0.0.1', port) : url
}

function hasLoopback6(): boolean {
  return Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'))
}

export function listenError({ host, port, names }: Place, cause: unknown): SealpostError {
  const code = systemCode(cause)
  const wrong = (reason: string, hint: string): SealpostError => new SealpostError('invalid_config', reason, { cause, hint })
  const another = `give an address of this machine with ${names.host}, as 127.0.0.1`
  switch (code) {
    case 'EADDRINUSE':
      return new SealpostError('port_in_use', `port ${port} of ${host} is taken`, {
        cause,
        hint: `choose another port with ${names.port} (0 takes a free one), or stop what listens there`,
      })
    case 'EACCES':
      return wrong(
        `this user may not listen at port ${port}`,
        `choose a port from 1024 on with ${names.port}, or give the process CAP_NET_BIND_SERVICE`,
      )
    case 'EADDRNOTAVAIL':
      return wrong(`${host} is not an address of this machine`, another)
    case 'EINVAL':
      return isIPv6(host) && /^fe[89ab]/i.test(host)
        ? wrong(
            `${host} is an address of one network link, and its interface is missing or not one of this machine`,
            `name the interface behind %, as fe80::1%eth0, or ${another}`,
          )
        : wrong(`the system does not let anybody listen at ${host}`, another)
    case 'ENOTFOUND':
    case 'EAI_NONAME':
    case 'EAI_NODATA':
      return wrong(`the name ${host} is not known here`, `check the name, or give an address with ${names.host}`)
    case 'EAI_AGAIN':
    case 'EAI_FAIL':
      return wrong(`the name ${host} could not be looked up: the DNS does not answer`, `try again, or give an address with ${names.host}`)
    case 'EAFNOSUPPORT':
      return wrong(`${isIPv6(host) ? 'IPv6' : 'IPv4'} is switched off on this machine, and ${host} needs it`, another)
    case 'EMFILE':
    case 'ENFILE':
      return new SealpostError('disk', `no socket can be opened at ${host}: too many files are open`, {
        cause,
        hint: 'raise the limit of open files (LimitNOFILE, ulimit -n), then start again',
      })
    default:
      return wrong(
        `nothing can listen at port ${port} of ${host} (${code ?? 'the cause is not known'})`,
        `choose another place with ${names.host} and ${names.port}`,
      )
  }
}
