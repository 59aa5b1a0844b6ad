import { toBase64url } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { Sealpost, SealpostError } from '../src/index.ts'
import { openHome } from '../src/node.ts'
import { useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()
const text = (value: string): Uint8Array => new TextEncoder().encode(value)

async function* linesOf(parts: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let held = ''
  const decoder = new TextDecoder()
  for await (const part of parts) {
    const lines = (held + decoder.decode(part, { stream: true })).split('\n')
    held = lines.pop() ?? ''
    yield* lines
  }
}
async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
async function* from<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items
}
async function failure(work: Promise<unknown>): Promise<SealpostError> {
  return work.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: SealpostError) => error,
  )
}
async function readAll(sealpost: Sealpost, count: number): Promise<string[]> {
  const seen: string[] = []
  for await (const item of sealpost.stream('main').events({ from: 'start' })) {
    if (item.is === 'event') seen.push(new TextDecoder().decode(item.data))
    if (seen.length === count) break
  }
  return seen
}

describe('rename', () => {
  it('gives a device a safe name that all devices see; G05: not one that is taken', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    expect(await laptop.rename(phone.device_id, ' old\u202E phone ')).toBe('old phone')
    await expect.poll(async () => (await phone.status()).name).toBe('old phone')
    expect(await phone.rename(phone.device_id, 'pocket')).toBe('pocket')
    expect(await phone.rename(phone.device_id, 'pocket')).toBe('pocket')
    expect((await failure(phone.rename(phone.device_id, 'LAPTOP'))).code).toBe('name_taken')
    expect((await failure(laptop.rename('00000000-0000-4000-8000-000000000000', 'x'))).code).toBe('not_found')
  })

  it('G08: a name of which nothing is left is refused, and so is a new one for a revoked device', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    for (const name of ['', ' \t', '\u200B\u202E'])
      expect((await failure(laptop.rename(phone.device_id, name))).code).toBe('invalid_request')
    const made = Sealpost.create({ home: relay.keep(await relay.home('nameless')), server: relay.url, name: ' ', device_type: 'desktop' })
    expect((await failure(made)).code).toBe('invalid_request')
    await laptop.revoke(phone.device_id)
    expect(await failure(laptop.rename(phone.device_id, 'other'))).toMatchObject({
      code: 'invalid_request',
      message: expect.stringContaining('keeps the name'),
    })
    expect((await laptop.devices()).map(({ name }) => name)).toEqual(['laptop', 'phone'])
  })
})

/** A home that notes the seed and the keys of the root that are made in it; `left` of each when all is over. */
async function watchedHome(name: string) {
  const home = relay.keep(await relay.home(name))
  const secrets: Uint8Array[] = []
  const hkdf: typeof home.crypto.hkdf = async (key, salt, info, length) => {
    const derived = await home.crypto.hkdf(key, salt, info, length)
    if (Buffer.from(info).includes('sealpost/1 root-')) secrets.push(key, derived)
    return derived
  }
  return { home: { ...home, crypto: { ...home.crypto, hkdf } }, left: () => secrets.map((secret) => secret.some((byte) => byte !== 0)) }
}

describe('create', () => {
  it('leaves no seed and no key of the root behind, also when it fails', async () => {
    const attempt = async (onWords?: () => Promise<void>) => {
      const { home, left } = await watchedHome('made')
      const made = Sealpost.create({
        home,
        server: relay.url,
        name: 'x',
        device_type: 'desktop',
        connect: false,
        ...(onWords === undefined ? {} : { onWords }),
      })
      const outcome = await made.then(
        () => 'created',
        ({ message }: Error) => message,
      )
      return { outcome, left: left() }
    }
    const left = [false, false, false, false]
    expect(await attempt()).toEqual({ outcome: 'created', left })
    expect(await attempt(() => Promise.reject(new Error('nobody took the words')))).toEqual({ outcome: 'nobody took the words', left })
  })
})

describe('recover', () => {
  it('brings a new device in by the words, with all history, and shuts all others out', async () => {
    const { sealpost: laptop, recovery_words } = await relay.create('lost laptop')
    const phone = await relay.pair(laptop, 'lost phone')
    await laptop.stream('main').send(text('before'))
    await phone.stream('main').send(text('also before'))
    const { sealpost, history, pinned } = await Sealpost.recover({
      home: await relay.home('found'),
      server: relay.url,
      name: 'lost laptop',
      device_type: 'desktop',
      words: `  ${recovery_words.toUpperCase().replaceAll(' ', '\n')} `,
    })
    relay.keep(sealpost)
    expect({ history, pinned, user_id: sealpost.user_id }).toEqual({ history: true, pinned: false, user_id: laptop.user_id })
    expect(await readAll(sealpost, 2)).toEqual(['before', 'also before'])
    await sealpost.stream('main').send(text('after'))
    await expect.poll(() => [laptop.failure?.code, phone.failure?.code]).toEqual(['device_revoked', 'device_revoked'])
    expect((await sealpost.devices()).filter((device) => device.revoked === null).map(({ name }) => name)).toEqual(['lost laptop'])
    // and once more, from the words again
    const again = await Sealpost.recover({
      home: await relay.home('again'),
      server: relay.url,
      name: 'tablet',
      device_type: 'mobile',
      words: recovery_words,
    })
    expect(await readAll(relay.keep(again.sealpost), 3)).toEqual(['before', 'also before', 'after'])
  })

  it('says what is wrong with the words, and changes nothing', async () => {
    const { recovery_words } = await relay.create('a')
    const words = recovery_words.split(' ')
    const home = relay.keep(await relay.home('wrong'))
    const recover = (given: string) =>
      failure(Sealpost.recover({ home, server: relay.url, name: 'x', device_type: 'desktop', words: given })).then(({ code, message }) => ({
        code,
        message,
      }))
    expect(await recover('abandon '.repeat(3))).toMatchObject({ code: 'invalid_words', message: expect.stringContaining('24 words') })
    expect(await recover([...words.slice(1), 'sealpost'].join(' '))).toMatchObject({ message: expect.stringContaining('word 24') })
    expect(await recover([...words.slice(1), words[0]].join(' '))).toMatchObject({
      code: expect.stringMatching(/invalid_words|not_found/),
    })
    expect(await recover(`${'abandon '.repeat(23)}art`)).toMatchObject({
      code: 'not_found',
      message: expect.stringContaining('no account of these recovery words'),
    })
    expect(await home.store.readIdentity()).toBeNull()
  })

  it('says that the account was deleted; whatever becomes of it, no seed and no key of the root is left', async () => {
    const { recovery_words: kept } = await relay.create('kept')
    const { sealpost, recovery_words: gone } = await relay.create('gone')
    await sealpost.deleteAccount()
    const attempt = async (words: string) => {
      const { home, left: leftOver } = await watchedHome('back')
      const outcome = await Sealpost.recover({
        home,
        server: relay.url,
        name: 'x',
        device_type: 'desktop',
        words,
        connect: false,
      }).then(
        () => 'recovered',
        ({ code, message }: SealpostError) => `${code}: ${message}`,
      )
      return { outcome, left: leftOver() }
    }
    const left = [false, false, false, false]
    expect(await attempt(gone)).toEqual({ outcome: expect.stringMatching(/^account_gone: .* was deleted/), left })
    expect(await attempt(`${'abandon '.repeat(23)}art`)).toEqual({ outcome: expect.stringMatching(/^not_found: /), left })
    expect(await attempt(kept)).toEqual({ outcome: 'recovered', left })
  })
})

describe('B08: export', () => {
  it('holds all that the server has, and its events open with the keys of a device', async () => {
    const { sealpost: laptop } = await relay.create('exporter')
    const phone = await relay.pair(laptop, 'export phone')
    const sent = Array.from({ length: 600 }, (_, i) => `event ${i}`)
    await Promise.all(sent.slice(0, 500).map((line) => laptop.stream('main').send(text(line))))
    await Promise.all(sent.slice(500).map((line) => phone.stream('other').send(text(line))))
    const lines = await collect(linesOf(laptop.exportAccount()))
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({ kind: 'end', counts: { event: 600, device: 2, log_entry: 2, stream: 2, account: 1 } })
    expect(lines.join('\n')).not.toContain(toBase64url(text('event 7')))
    for (const reader of [laptop, phone]) {
      const items = await collect(reader.openExport(from(lines)))
      expect(items.map((item) => (item.is === 'event' ? new TextDecoder().decode(item.data) : item.is))).toEqual(sent)
    }
    const at = lines.findIndex((line) => line.startsWith('{"kind":"event"'))
    const changed = lines.toSpliced(
      at + 1,
      1,
      lines[at + 1]!.replace(/"encrypted_payload":"..../, (found) => `${found.slice(0, -4)}AAAA`),
    )
    expect((await collect(laptop.openExport(from(changed)))).filter(({ is }) => is === 'alarm')).toHaveLength(1)
    for (const wrong of [lines.slice(0, -1), lines.toSpliced(at, 1), lines.slice(1)])
      expect((await failure(collect(laptop.openExport(from(wrong))))).code).toBe('invalid_message')
    const { sealpost: stranger } = await relay.create('stranger')
    expect((await failure(collect(stranger.openExport(from(lines))))).code).toBe('forbidden')
  })
})

describe('G04: delete', () => {
  it('ends the account for all devices, empties this home, and leaves it fit for a new account', async () => {
    const { sealpost: laptop } = await relay.create('deleted')
    const phone = await relay.pair(laptop, 'deleted phone')
    await laptop.stream('main').send(text('gone'))
    const { access_token } = await laptop.accessToken()
    const authorization = `Bearer ${access_token}`
    expect((await fetch(`${relay.url}/api/user`, { headers: { authorization } })).status).toBe(200)
    expect(await laptop.deleteAccount()).toMatchObject({ account: 1, device: 2, event: 1 })
    await expect.poll(() => phone.failure?.code).toBe('account_gone')
    expect((await fetch(`${relay.url}/api/user`, { headers: { authorization } })).status).toBe(401)
    // a close code wipes nothing
    expect((await phone.status()).name).toBe('deleted phone')
    // and who asks for the same end has it, as often as it asks
    expect(await phone.deleteAccount()).toBeNull()
    expect((await failure(Sealpost.open({ home: relay.keep(await openHome(relay.last('deleted phone')!)) }))).code).toBe('not_paired')
  })

  it('a device that was offline finds out when it asks for the same, also where sign-up is closed', async () => {
    const { sealpost: laptop } = await relay.create('first to delete')
    const phone = await relay.pair(laptop, 'late phone')
    await phone.close()
    await laptop.deleteAccount()
    await relay.stop()
    await relay.start({ SEALPOST_SIGNUP: 'closed' })
    const late = relay.keep(await Sealpost.open({ home: await openHome(relay.last('late phone')!) }))
    expect(await late.deleteAccount()).toBeNull()
    await relay.stop()
    await relay.start()
  })

  it('a request that never came through is no end: the home keeps its device, and may ask again', async () => {
    const { sealpost } = await relay.create('cut off')
    await sealpost.close()
    const home = await openHome(relay.last('cut off')!)
    let isCut = true
    const http: typeof home.http = {
      ...home.http,
      request: (request) =>
        isCut && request.method === 'DELETE' ? Promise.reject(new SealpostError('unreachable', 'cut')) : home.http.request(request),
    }
    const again = relay.keep(await Sealpost.open({ home: { ...home, http } }))
    const stop = new AbortController()
    const refused = failure(again.deleteAccount({ signal: stop.signal }))
    await expect.poll(() => again.state).toBe('live')
    stop.abort()
    expect((await refused).code).toBe('aborted')
    expect(await home.store.readIdentity()).not.toBeNull()
    isCut = false
    expect(await again.deleteAccount()).toMatchObject({ account: 1 })
  })
})
