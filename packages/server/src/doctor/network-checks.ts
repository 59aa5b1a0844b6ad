/** Checks of what others reach: the port, the URL that devices connect to, and who may come in. */
import { equalBytes, isLoopback } from '@sealpost/protocol'
import type { Config } from '../config/config.ts'
import { createAddressRule } from '../limits/address.ts'
import { type Check, daysText, fail, ok, seen, sizeText, skipped, type Verdict, warn } from './check.ts'
import type { Facts, PublicUrl, Tls } from './facts.ts'

const CERTIFICATE_DAYS_MIN = 14
/** Addresses that are given to nobody (RFC 5737, 3849): who believes one of them believes strangers. */
const STRANGERS = ['203.0.113.1', '2001:db8::1'] as const
const CLIENTS = ['198.51.100.1', '2001:db8:1::1'] as const
const OTHER_KEY = 'devices of this relay refuse it'

export const NETWORK_CHECKS: readonly Check[] = [
  {
    name: 'port',
    says: 'which server answers at the address of the relay',
    run: ({ port }) =>
      seen(port, (value) => {
        const { at } = value
        if (value.is === 'no_address') return fail(`${at} is no address of this machine`, 'choose another with SEALPOST_HOST')
        if (value.is === 'other')
          return fail(`something else is at ${at}: ${value.reason}`, 'choose another port with SEALPOST_PORT, or stop what listens there')
        if (value.is === 'silent') return warn(`nothing listens at ${at}: the port is free`, 'start the relay: sealpost serve')
        if (!value.ready) return fail(`a relay at ${at}, which is not ready`, 'it has no database, or is stopping: look at its log')
        return ok(`a relay at ${at}, ready`)
      }),
  },
  {
    name: 'relay-key',
    says: 'that the relay at the port uses these secrets',
    run: (facts) =>
      seen(facts.port, (value) => (value.is === 'relay' ? judgeKey(facts, value.server_key) : skipped('no relay answers at the port'))),
  },
  {
    name: 'admin-port',
    says: 'that the admin listener is closed to other machines',
    run: ({ admin_port }) =>
      seen(admin_port, ({ host, port, reached }) => {
        const advice = 'keep it on 127.0.0.1, and come in by a tunnel: ssh -L'
        if (!isLoopback(host)) return warn(`other machines reach ${host}, as configured`, advice)
        if (reached.length === 0) return ok(`at ${host} alone`)
        return fail(`configured for ${host}, and something answers at port ${port} of ${reached.join(', ')}`, advice)
      }),
  },
  { name: 'public-url', says: 'that the URL of the devices leads to this relay over https', run: (facts) => onPublic(facts, judgeUrl) },
  {
    name: 'certificate',
    says: 'the certificate of that URL, and how long it is valid',
    run: (facts) => onTls(facts, (tls) => judgeCertificate(tls, facts.now)),
  },
  {
    name: 'tls-version',
    says: 'the TLS versions that this URL accepts',
    run: (facts) =>
      onTls(facts, ({ version, old_version }) =>
        old_version === null
          ? ok(version)
          : fail(`${old_version} is taken too`, 'let the proxy take TLS 1.2 and 1.3 alone (nginx: ssl_protocols TLSv1.2 TLSv1.3)'),
      ),
  },
  {
    name: 'websocket',
    says: 'that sockets pass the proxy, with their subprotocol',
    run: (facts) =>
      onPublic(facts, ({ socket_failed }) => {
        if (socket_failed === null) return ok('a socket opens')
        const advice =
          'let the proxy pass Upgrade, Connection and Sec-WebSocket-Protocol for /api/socket (nginx: proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection "upgrade")'
        return fail(`no socket opens: ${socket_failed}`, advice)
      }),
  },
  {
    name: 'forwarded-for',
    says: 'which proxies the relay trusts to name the address of a client',
    run: ({ config }) => seen(config, judgeProxies),
  },
  {
    name: 'sign-up',
    says: 'who may create accounts on a relay that strangers can reach',
    run: ({ config, database }) =>
      seen(config, (value) => {
        const own = 'seen' in database && database.seen.is === 'reached' ? database.seen.own : null
        const signup = (own !== null && 'seen' in own ? own.seen.signup : null) ?? value.signup
        if (signup !== 'open' || !isPublic(value)) return ok(signup === 'open' ? 'open, on this machine alone' : signup)
        return warn('open: whoever finds the URL may store here', 'SEALPOST_SIGNUP=invite or closed, unless that is what you want')
      }),
  },
  {
    name: 'retention',
    says: 'the bounds on stored events',
    run: ({ config, folder }) =>
      seen(config, ({ retention, quota_bytes, database_url }) => {
        const { age_ms, bytes } = retention
        const found = [
          age_ms === null ? 'events of any age' : `events up to ${daysText(age_ms / 1000)}`,
          bytes === null ? 'no bound of all together' : `${sizeText(bytes)} together`,
          quota_bytes === null ? 'no quota' : `${sizeText(quota_bytes)} for each user`,
        ].join(', ')
        const disk = 'seen' in folder && folder.seen.is === 'there' && database_url === null ? folder.seen.disk.total_bytes : null
        if (bytes === null || disk === null || bytes < disk) return ok(found)
        return warn(`${found}: more than the disk holds (${sizeText(disk)})`, 'lower SEALPOST_RETENTION_BYTES below the size of the disk')
      }),
  },
]

/** The URL that was given, or an address that other machines reach. */
function isPublic({ public_url, host }: Config): boolean {
  return !isLoopback(public_url === null ? host : new URL(public_url).hostname)
}

function onPublic(facts: Facts, judge: (value: PublicUrl, facts: Facts) => Verdict): Verdict {
  return seen(facts.public_url, (value) => judge(value, facts))
}

function onTls(facts: Facts, judge: (tls: Tls) => Verdict): Verdict {
  return onPublic(facts, ({ tls }) => {
    if (tls === null) return skipped('the URL is not https')
    return 'failed' in tls ? skipped(`no TLS: ${tls.failed}`) : judge(tls)
  })
}

function judgeUrl({ url, answer }: PublicUrl, facts: Facts): Verdict {
  if ('failed' in answer) return fail(`${url} does not answer: ${answer.failed}`, 'check its name in the DNS, the firewall and the proxy')
  if (answer.server_key === null)
    return fail(`${url} leads to no relay (status ${answer.status})`, 'let the proxy pass every path to the relay, as it is')
  const key = judgeKey(facts, answer.server_key)
  if (key.is !== 'fail') return ok(`${url} leads to ${key.is === 'ok' ? 'this' : 'a'} relay`)
  return fail(`${url} leads to another relay: ${OTHER_KEY}`, 'let the proxy pass to the relay of these secrets')
}

function judgeKey({ secrets }: Facts, server_key: Uint8Array): Verdict {
  return seen(secrets, (file) => {
    if (file.is !== 'read') return skipped('the secrets were not read')
    if (equalBytes(file.server_key, server_key)) return ok('the one of these secrets')
    return fail(`a relay with another key: ${OTHER_KEY}`, 'name its secrets with SEALPOST_SECRETS_FILE or its folder with --data')
  })
}

function judgeCertificate({ refused, valid_to_ms }: Tls, now: number): Verdict {
  const days = Math.floor((valid_to_ms - now) / 86_400_000)
  const until = new Date(valid_to_ms).toISOString().slice(0, 10)
  if (valid_to_ms <= now) return fail(`it ended on ${until}: no device connects`, 'renew it, and look why nothing renews it by itself')
  if (refused !== null)
    return fail(
      `it does not stand (${refused}): no device connects`,
      'serve the whole chain of a certificate for this name, by a public CA',
    )
  if (days < CERTIFICATE_DAYS_MIN) return warn(`${days} days left (${until})`, 'renew it, and look why nothing renews it by itself')
  return ok(`${days} days left (${until})`)
}

function judgeProxies(config: Config): Verdict {
  const { trusted_proxies, host, public_url } = config
  const { limitedAddress } = createAddressRule(trusted_proxies)
  const believes = (peer: string): boolean =>
    CLIENTS.some((client) => limitedAddress(peer, { 'x-forwarded-for': client }) === limitedAddress(client, {}))
  if (STRANGERS.some(believes) || trusted_proxies.some((network) => network.endsWith('/0')))
    return fail(
      'everybody’s: limits of an address hold for nobody',
      'name the proxies alone in SEALPOST_TRUSTED_PROXIES, as 127.0.0.1 or 10.0.0.5',
    )
  if (public_url === null || isLoopback(new URL(public_url).hostname)) return ok(trusted_proxies.join(', ') || 'nobody’s')
  if (trusted_proxies.length === 0)
    return warn(
      'nobody’s: behind a proxy all devices count as one address, and share its limits',
      'name the proxy in SEALPOST_TRUSTED_PROXIES, as 127.0.0.1',
    )
  // who reaches a port on loopback comes from there
  if (isLoopback(host) && !believes('127.0.0.1') && !believes('::1'))
    return warn(
      `that of ${trusted_proxies.join(', ')}, and not of 127.0.0.1, whence a proxy reaches ${host}`,
      'name 127.0.0.1 in SEALPOST_TRUSTED_PROXIES',
    )
  return ok(`that of ${trusted_proxies.join(', ')}`)
}
