import { chmodSync, cpSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Notice, Sealpost } from '../src/index.ts'
import { openHome } from '../src/node.ts'
import { findFreePort } from '@sealpost/testing/components/free-port'
import { bytes, settled, take, text, useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()

describe('the device list', () => {
  it('a revoked device is cut off, wipes its keys, and says by whom and when (R07)', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const home = await relay.home('phone')
    const phone = await relay.pair(laptop, 'phone', () => home)
    const notices: Notice[] = []
    phone.on((notice) => notices.push(notice))
    await phone.stream('main').send(bytes('before'))
    await laptop.revoke(phone.device_id)
    await settled(() => phone.failure?.code).toBe('device_revoked')
    expect(phone.failure?.message).toContain('revoked by "laptop"')
    expect(await home.store.readIdentity()).toBeNull()
    expect((await home.store.readRevocation())?.by_name).toBe('laptop')
    expect(notices.some((notice) => notice.is === 'error' && notice.terminal && notice.error.code === 'device_revoked')).toBe(true)
    await expect(phone.stream('main').send(bytes('after'))).rejects.toMatchObject({ code: 'device_revoked' })
    const listed = (await laptop.devices()).find((device) => device.device_id === phone.device_id)
    expect(listed).toMatchObject({ name: 'phone', revoked: { by_name: 'laptop' }, self: false })
    // what it sent before stands
    const [event] = await take(laptop.stream('main').events(), 1)
    expect(text(event!)).toBe('before')
  })

  it('a device that was offline while it was revoked learns it at the next start and wipes its keys', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    await phone.close()
    await laptop.revoke(phone.device_id)
    const folder = folderOf('phone')
    const again = relay.keep(await Sealpost.open({ home: await openHome(folder) }))
    await settled(() => again.failure?.code).toBe('device_revoked')
    await again.close()
    await expect(Sealpost.open({ home: await openHome(folder) })).rejects.toMatchObject({ code: 'device_revoked' })
  })

  it('a device that was away finds with its first call what was added meanwhile: it renames it, pairs beside it, revokes it', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    await (await relay.pair(laptop, 'desk')).close()
    const away = async (): Promise<Sealpost> => relay.keep(await Sealpost.open({ home: await openHome(folderOf('desk')) }))
    const phone = await relay.pair(laptop, 'phone')

    let desk = await away()
    await desk.refreshDevices()
    expect((await desk.devices()).map(({ name }) => name)).toEqual(['laptop', 'desk', 'phone'])
    await desk.close()

    const tablet = await relay.pair(laptop, 'tablet')
    desk = await away()
    expect(await desk.rename(tablet.device_id, 'slate')).toBe('slate')
    await desk.close()

    await laptop.rename(tablet.device_id, 'tablet')
    desk = await away()
    const watch = await relay.pair(desk, 'watch')
    await desk.close()

    await laptop.rename(watch.device_id, 'clock')
    desk = await away()
    await desk.revoke(phone.device_id)
    await settled(() => phone.failure?.code).toBe('device_revoked')
    await desk.close()

    const stolen = await relay.pair(laptop, 'stolen')
    desk = await away()
    await desk.revoke(stolen.device_id)
    await settled(() => stolen.failure?.code).toBe('device_revoked')
  })

  it('a second process of a home finds what was added a moment ago, and shows what it changed as soon as that is done', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const desk = await relay.pair(laptop, 'desk')
    const second = relay.keep(await Sealpost.open({ home: await openHome(folderOf('desk')) }))
    expect([desk.role, second.role]).toEqual(['leader', 'follower'])
    for (const name of ['a', 'b', 'c']) {
      const added = await relay.pair(laptop, name)
      if (name === 'b') await second.refreshDevices()
      if (name === 'b') expect((await second.devices()).some((device) => device.device_id === added.device_id)).toBe(true)
      await second.revoke(added.device_id)
      const listed = (await second.devices()).find((device) => device.device_id === added.device_id)
      expect(listed).toMatchObject({ name, revoked: { by_name: 'desk' } })
    }
    const paired = await relay.pair(second, 'd')
    expect((await second.devices()).map(({ device_id }) => device_id)).toContain(paired.device_id)
  })

  it('without a connection the list is what is known, and to refresh it says that the server cannot be reached', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    await laptop.close()
    const alone = relay.keep(await Sealpost.open({ home: await openHome(folderOf('laptop')), connect: false }))
    expect(await alone.devices()).toMatchObject([{ name: 'laptop', self: true }])
    await expect(alone.refreshDevices()).rejects.toMatchObject({ code: 'unreachable' })
  })

  it('revoking a device that goes on sending ends, and a doubled revocation is fine', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    const stop = new AbortController()
    const busy = (async () => {
      while (!stop.signal.aborted) await phone.stream('main').send(bytes('x'), { signal: stop.signal })
    })().catch(() => undefined)
    await laptop.revoke(phone.device_id)
    await laptop.revoke(phone.device_id)
    stop.abort()
    await busy
    await settled(() => phone.failure?.code).toBe('device_revoked')
  })

  it('who is online and what is stored is in the status', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    await settled(async () => (await laptop.devices()).map((device) => [device.name, device.online])).toEqual([
      ['laptop', true],
      ['phone', true],
    ])
    const status = await phone.status()
    expect(status).toMatchObject({ state: 'live', role: 'leader', log_seq: 1, outbox: { pending: 0, rejected: 0 }, alarms: 0 })
    expect(status.device_list_fingerprint).toBe((await laptop.status()).device_list_fingerprint)
    await laptop.close()
    await settled(async () => (await phone.devices())[0]?.online).toBe(false)
  })

  it('a wrong code, a malformed one, and an unconfirmed phrase each have their own answer', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const options = { server: relay.url, name: 'phone', device_type: 'mobile' as const, confirm: () => Promise.resolve(true) }
    await expect(Sealpost.join({ ...options, home: await relay.home('p'), code: 'K7QM-3XWP-9RTB-D2FH' })).rejects.toMatchObject({
      code: 'invalid_code',
    })
    await expect(Sealpost.join({ ...options, home: await relay.home('p'), code: 'short' })).rejects.toMatchObject({ code: 'invalid_code' })
    const stop = new AbortController()
    const home = await relay.home('p')
    const joined = Promise.withResolvers<Sealpost>()
    const pairing = laptop.pair({
      onCode(code) {
        Sealpost.join({ ...options, home, code, signal: stop.signal }).then(joined.resolve, joined.reject)
      },
      confirm: () => Promise.resolve(false),
    })
    await expect(pairing).rejects.toMatchObject({ code: 'check_phrase_mismatch' })
    stop.abort()
    await expect(joined.promise).rejects.toMatchObject({ code: 'aborted' })
    expect(await laptop.devices()).toHaveLength(1)
  })
})

describe('a home', () => {
  it('a second process of it follows: it sends, reads, queries and revokes through the leader, and takes over when that ends', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    const second = relay.keep(await Sealpost.open({ home: await openHome(folderOf('laptop')) }))
    expect([laptop.role, second.role]).toEqual(['leader', 'follower'])
    await second.stream('main').send(bytes('from the follower'))
    await phone.stream('main').send(bytes('to both'))
    expect((await take(phone.stream('main').events(), 1)).map(text)).toEqual(['from the follower'])
    expect((await take(second.stream('main').events({ consumer: 'b' }), 1)).map(text)).toEqual(['to both'])
    expect((await take(laptop.stream('main').events({ consumer: 'a' }), 1)).map(text)).toEqual(['to both'])
    expect((await take(second.stream('main').events({ from: 'start', consumer: 'c' }), 1)).map(text)).toEqual(['to both'])
    expect((await second.status()).state).toBe('live')
    await laptop.close()
    await settled(() => second.role).toBe('leader')
    await second.stream('main').send(bytes('as the leader'))
    await second.revoke(phone.device_id)
    await settled(() => phone.failure?.code).toBe('device_revoked')
  })

  it('follows its server to another address, in all its processes, with the first one that is told', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    const second = relay.keep(await Sealpost.open({ home: await openHome(folderOf('laptop')) }))
    const old = relay.url
    await relay.stop()
    await laptop.stream('main').enqueue([{ data: bytes('on the way') }])
    await relay.start({ SEALPOST_PORT: String(await findFreePort()) })
    try {
      await expect(second.moveServer(old)).rejects.toMatchObject({ code: 'unreachable' })
      await second.moveServer(relay.url)
      await phone.moveServer(`${relay.url}/#${(await phone.status()).server_key}`)
      expect((await take(phone.stream('main').events(), 1)).map(text)).toEqual(['on the way'])
      for (const one of [laptop, second, phone]) {
        await settled(() => one.state).toBe('live')
        expect((await one.status()).server).toBe(relay.url)
        expect(await one.accessToken()).toMatchObject({ expires_in: 600 })
      }
      // a follower that heard of it from its leader, and a later start
      await Promise.all([laptop.close(), second.close()])
      const again = relay.keep(await Sealpost.open({ home: await openHome(folderOf('laptop')) }))
      await settled(() => again.state).toBe('live')
    } finally {
      await relay.stop()
      await relay.start()
    }
  })

  it('a copied home supersedes the first and is superseded in turn; the loser says so and nothing is lost', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    await laptop.stream('main').send(bytes('one'))
    await laptop.close()
    const copy = join(relay.folder, `copy-${Date.now()}`)
    cpSync(folderOf('laptop'), copy, { recursive: true })
    chmodSync(copy, 0o700)
    const first = relay.keep(await Sealpost.open({ home: await openHome(folderOf('laptop')) }))
    await first.stream('main').send(bytes('two'))
    await first.stream('main').send(bytes('three'))
    const second = relay.keep(await Sealpost.open({ home: await openHome(copy) }))
    await settled(() => first.failure?.code).toBe('superseded')
    // the copy does not know numbers 2 and 3: it replays, hands them over, and goes on behind them
    const ack = await second.stream('main').send(bytes('four'))
    expect(ack.stream_seq).toBe(4)
    expect((await take(second.stream('main').events(), 2)).map(text)).toEqual(['two', 'three'])
    const third = await relay.pair(second, 'phone')
    const all = await take(third.stream('main').events(), 4)
    expect(all.map(text)).toEqual(['one', 'two', 'three', 'four'])
  })

  it('an empty one says how to begin; a used one refuses a second device', async () => {
    await expect(Sealpost.open({ home: await relay.home('none') })).rejects.toMatchObject({ code: 'not_paired' })
    const { sealpost: laptop } = await relay.create('laptop')
    await laptop.close()
    const options = { home: await openHome(folderOf('laptop')), server: relay.url, name: 'x', device_type: 'desktop' as const }
    await expect(Sealpost.create(options)).rejects.toMatchObject({ code: 'already_paired' })
    await options.home.close()
  })

  it('a server with another key than the pinned one gets nothing', async () => {
    const options = { server: `${relay.url}/#${'A'.repeat(43)}`, name: 'x', device_type: 'desktop' as const }
    await expect(Sealpost.create({ ...options, home: await relay.home('x') })).rejects.toMatchObject({ code: 'server_identity' })
    const { sealpost: laptop } = await relay.create('laptop')
    await laptop.close()
    const home = await openHome(folderOf('laptop'))
    await home.store.updateIdentity({ server_key: new Uint8Array(32).fill(7) })
    const wrong = relay.keep(await Sealpost.open({ home }))
    await settled(() => wrong.failure?.code).toBe('server_identity')
    await expect(wrong.stream('main').send(bytes('x'))).rejects.toMatchObject({ code: 'server_identity' })
    expect(wrong.state).toBe('offline')
  })
})

function folderOf(name: string): string {
  const folder = relay.last(name)
  if (folder === undefined) throw new Error(`no home of ${name}`)
  return folder
}
