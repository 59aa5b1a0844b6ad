import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { networkInterfaces } from 'node:os'
import { fastify } from 'fastify'
import { describe, expect, it } from 'vitest'
import { readConfig } from '../config/config.ts'
import { adminPlaceOf, listen, listenError, placeOf } from './listening.ts'

/** What listening at this host and port comes to. */
async function listenAt(host: string, port = 0): Promise<unknown> {
  const app = fastify()
  try {
    return await listen(app, { host, port, names: { host: '--host', port: '--port' } })
  } catch (error) {
    return error
  } finally {
    await app.close()
  }
}

async function withTaken<T>(work: (port: number) => Promise<T>): Promise<T> {
  const other: Server = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  try {
    return await work((other.address() as { port: number }).port)
  } finally {
    other.close()
  }
}

const linkLocal = Object.values(networkInterfaces())
  .flatMap((all) => all ?? [])
  .some(({ scopeid }) => Boolean(scopeid))

describe('what the system says to a listener has a sentence and a way out', () => {
  it('a port that is taken', async () => {
    await withTaken(async (port) => {
      expect(await listenAt('127.0.0.1', port)).toMatchObject({
        code: 'port_in_use',
        message: `port ${port} of 127.0.0.1 is taken`,
        hint: expect.stringContaining('--port'),
      })
    })
  })

  it.each([
    ['192.0.2.200', /not an address of this machine/],
    ['2001:db8::7', /not an address of this machine|IPv6 is switched off/],
    ['fe80::1', /one network link, and its interface is missing/],
    ['fe80::1%nosuch', /one network link, and its interface is missing/],
    ['ff02::1', /does not let anybody listen|IPv6 is switched off/],
    ['relay.invalid', /is not known here|could not be looked up/],
  ])('%s', async (host, message) => {
    expect(await listenAt(host)).toMatchObject({
      code: 'invalid_config',
      message: expect.stringMatching(message),
      hint: expect.stringContaining('--host'),
    })
  })

  it.runIf(linkLocal)('an address of a link with an interface that has another', async () => {
    const [name] = Object.entries(networkInterfaces()).find(([, all]) => all?.some(({ scopeid }) => Boolean(scopeid))) ?? []
    expect(await listenAt(`fe80::1%${name}`)).toMatchObject({ code: 'invalid_config', message: expect.stringContaining('not an address') })
  })

  it.each([
    ['EACCES', 'invalid_config', /may not listen at port 80/, /from 1024 on with --port/],
    ['EAFNOSUPPORT', 'invalid_config', /IPv6 is switched off/, /--host/],
    ['EAI_AGAIN', 'invalid_config', /the DNS does not answer/, /--host/],
    ['EMFILE', 'disk', /too many files are open/, /ulimit -n/],
    ['ENOBUFS', 'invalid_config', /nothing can listen at port 80 of ::1 \(ENOBUFS\)/, /--host and --port/],
  ])('%s, which a test cannot make everywhere', (code, known, message, hint) => {
    const error = listenError(
      { host: '::1', port: 80, names: { host: '--host', port: '--port' } },
      Object.assign(new Error(code), { code, syscall: 'listen' }),
    )
    expect(error).toMatchObject({ code: known, message: expect.stringMatching(message), hint: expect.stringMatching(hint) })
  })
})

describe('where it listens', () => {
  it.each([
    ['127.0.0.1', '127.0.0.1'],
    ['0.0.0.0', '127.0.0.1'],
  ])('%s is told as this machine reaches it', async (host, reached) => {
    expect(await listenAt(host)).toEqual({ url: expect.stringMatching(new RegExp(`^http://${reached}:\\d+$`)), port: expect.any(Number) })
  })

  it('the names are those by which each place was given', () => {
    const config = readConfig({ SEALPOST_ADMIN_HOST: '::1', SEALPOST_PORT: '1' }, { host: '::1' })
    expect(placeOf(config).names).toEqual({ host: '--host', port: 'SEALPOST_PORT' })
    expect(config.admin && adminPlaceOf(config.admin, config).names).toEqual({ host: 'SEALPOST_ADMIN_HOST', port: 'SEALPOST_ADMIN_PORT' })
  })
})
