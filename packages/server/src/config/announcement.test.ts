import { isLoopback, isUnspecified, localUrl, parseServerUrl, toBase64url } from '@sealpost/protocol'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { announce } from './announcement.ts'
import { readConfig } from './config.ts'

const KEY = new Uint8Array(32).fill(7)

/** What a relay with this configuration prints; free ports are numbers that were given. */
function printed(env: Record<string, string>): string {
  const config = readConfig(env)
  const admin_url = config.admin === null ? null : localUrl(config.admin.host, config.admin.port)
  return announce(config, { url: localUrl(config.host, config.port), admin_url, server_key: KEY }, 'aaaa bbbb cccc dddd')
}

function initOf(text: string): string | undefined {
  return /npx sealpost init --name laptop \\\n {4}--server "([^"]*)"\n/.exec(text)?.[1]
}

describe('what a relay prints', () => {
  it('by default are the two commands for this machine', () => {
    expect(printed({})).toBe(`listening on http://127.0.0.1:8787
server key fingerprint: aaaa bbbb cccc dddd
next, on this machine:
  npx sealpost init --name laptop \\
    --server "http://127.0.0.1:8787/#${toBase64url(KEY)}"
for admins: http://127.0.0.1:8788
the first owner, once:
  npx sealpost admin init --name NAME
`)
  })

  it.each(['0.0.0.0', '::'])('with --host %s is an address of this machine, and what other machines need', (host) => {
    const text = printed({ SEALPOST_HOST: host })
    expect(parseServerUrl(initOf(text) ?? '').url).toMatch(/^http:\/\/(127\.0\.0\.1|\[::1\]):8787$/)
    expect(text).toMatch(/^listening on \S+, and at the other addresses of this machine$/m)
    expect(text).toMatch(/^other machines need https: .* SEALPOST_PUBLIC_URL/m)
  })

  it('with an address that other machines reach alone is no command, and what devices need', () => {
    const text = printed({ SEALPOST_HOST: '192.0.2.7' })
    expect(initOf(text)).toBeUndefined()
    expect(text).toMatch(/^other machines need https: .* SEALPOST_PUBLIC_URL/m)
  })

  it('with a data folder, a database, an admin port or an admin host of its own names them', () => {
    expect(printed({ SEALPOST_DATA: '/var/lib/my relay' })).toContain("  npx sealpost admin init --name NAME --data '/var/lib/my relay'\n")
    expect(printed({ DATABASE_URL: 'postgresql://u:hunter2@localhost/d', SEALPOST_DATA: '/x' })).toMatch(
      /with the DATABASE_URL of this relay:\n {2}npx sealpost admin init --name NAME\n$/,
    )
    expect(printed({ SEALPOST_ADMIN_PORT: '9' })).toMatch(/^for admins: http:\/\/127\.0\.0\.1:9, .* --url or SEALPOST_ADMIN_URL$/m)
    expect(printed({ SEALPOST_ADMIN_HOST: '192.0.2.7' })).toMatch(
      /^for admins, by a TLS proxy or a tunnel \(ssh -L\): 192\.0\.2\.7, port 8788$/m,
    )
    expect(printed({ SEALPOST_ADMIN: 'off' })).not.toContain('admin')
  })

  it('is taken by init, whatever the host, the port and the public URL are; and no line is long', () => {
    const label = fc.stringMatching(/^[a-z0-9]([a-z0-9_-]{0,8}[a-z0-9])?$/)
    const name = fc.tuple(label, label).map((labels) => `${labels.join('.')}.example`)
    const host = fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      name,
      fc.constantFrom('0.0.0.0', '::', '::1', '127.0.0.1', 'localhost', 'fe80::1%eth0', 'bücher'),
    )
    const port = fc.integer({ min: 1, max: 65_535 }).map(String)
    const url = fc.option(
      fc.tuple(fc.oneof(name, fc.constantFrom('bücher.example', 'a_b')), port).map(([host, port]) => `https://${host}:${port}/`),
      {
        nil: '',
      },
    )
    fc.assert(
      fc.property(host, port, url, host, (host, port, url, admin_host) => {
        const text = printed({ SEALPOST_HOST: host, SEALPOST_PORT: port, SEALPOST_PUBLIC_URL: url, SEALPOST_ADMIN_HOST: admin_host })
        const address = initOf(text)
        if (address === undefined) expect(url === '' && !isLoopback(host) && !isUnspecified(host)).toBe(true)
        else expect(parseServerUrl(address).pin).toEqual(KEY)
        if (url !== '') expect(address).toBe(`${new URL(url).origin}/#${toBase64url(KEY)}`)
        // an address has no place to be broken at
        for (const line of text.replace(address ?? '', '').split('\n')) expect(line.length).toBeLessThanOrEqual(100)
      }),
    )
  })
})
