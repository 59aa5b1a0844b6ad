import { SealpostError } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { type Home, Sealpost } from '../src/index.ts'
import { openHome } from '../src/node.ts'
import { useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()

const yes = (): Promise<boolean> => Promise.resolve(true)

/** HTTP that loses the answer to every third request, after the server has acted on it. */
function losesAnswers(home: Home): Home {
  let asked = 0
  const http: Home['http'] = {
    ...home.http,
    async request(request) {
      const answer = await home.http.request(request)
      if (asked++ % 3 === 0) throw new SealpostError('unreachable', 'cut')
      return answer
    },
  }
  return { ...home, http }
}

/** A clock that is wrong by so much. */
function off(home: Home, ms: number): Home {
  return { ...home, clock: { ...home.clock, now: () => home.clock.now() + ms } }
}

async function create(name: string, wrap: (home: Home) => Home): Promise<Sealpost> {
  const home = wrap(await relay.home(name))
  const { sealpost } = await Sealpost.create({ home, server: relay.url, name, device_type: 'desktop' })
  return relay.keep(sealpost)
}

describe('a new account', () => {
  it('its recovery words are handed out before the server hears of it', async () => {
    const home = await relay.home('words')
    const steps: string[] = []
    const http: Home['http'] = {
      ...home.http,
      request(request) {
        steps.push(new URL(request.url).pathname)
        return home.http.request(request)
      },
    }
    const made = await Sealpost.create({
      home: { ...home, http },
      server: relay.url,
      name: 'words',
      device_type: 'desktop',
      connect: false,
      async onWords(words) {
        expect(words.split(' ')).toHaveLength(24)
        await Promise.resolve()
        steps.push('words')
      },
    })
    relay.keep(made.sealpost)
    expect(steps).toEqual(['/.well-known/sealpost.json', 'words', '/api/log'])
  })

  it('is not made when the words cannot be kept', async () => {
    const home = relay.keep(await relay.home('unkept'))
    const onWords = (): never => {
      throw new SealpostError('disk', 'full')
    }
    const creating = Sealpost.create({ home, server: relay.url, name: 'x', device_type: 'desktop', onWords })
    await expect(creating).rejects.toMatchObject({ code: 'disk' })
    expect(await home.store.readIdentity()).toBeNull()
  })

  it('the words are of no use only when the server surely refused it', async () => {
    const home = relay.keep(await relay.home('refused'))
    const problem = (code: string, status: number) => ({
      status,
      headers: { 'content-type': 'application/problem+json' },
      body: new TextEncoder().encode(JSON.stringify({ code })),
    })
    const outcome = async (answer: () => ReturnType<typeof problem>): Promise<[string, boolean]> => {
      let refused = false
      const http: Home['http'] = {
        ...home.http,
        request: (request) => (request.url.endsWith('/api/log') ? Promise.resolve().then(answer) : home.http.request(request)),
      }
      const ended = new AbortController()
      setTimeout(() => ended.abort(), 600)
      const error: unknown = await Sealpost.create({
        home: { ...home, http },
        server: relay.url,
        name: 'x',
        device_type: 'desktop',
        onRefused: () => {
          refused = true
        },
        signal: ended.signal,
      }).catch((thrown: unknown) => thrown)
      return [(error as SealpostError).code, refused]
    }
    expect(await outcome(() => problem('signup_closed', 403))).toEqual(['signup_closed', true])
    const lost = await outcome(() => {
      throw new SealpostError('timeout', 'no answer')
    })
    expect(lost[1]).toBe(false)
  })
})

describe('pairing (B02)', () => {
  it('comes to its end when every third answer is lost, on both devices', async () => {
    const laptop = await create('laptop', losesAnswers)
    const phone = await relay.pair(laptop, 'phone', losesAnswers)
    expect((await phone.devices()).map((device) => device.name).toSorted()).toEqual(['laptop', 'phone'])
  })

  it.each([3_600_000, -3_600_000])('works when the clocks are wrong by %i ms (G07)', async (ms) => {
    const laptop = await create('laptop', (home) => off(home, ms))
    const phone = await relay.pair(laptop, 'phone', (home) => off(home, ms))
    expect(phone.user_id).toBe(laptop.user_id)
  })

  it('a name that is taken ends it at once on both devices (G05)', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const home = relay.keep(await relay.home('same'))
    let joining: Promise<unknown> = Promise.resolve()
    const pairing = laptop.pair({
      onCode(code) {
        joining = Sealpost.join({ home, server: relay.url, code, name: 'Laptop', device_type: 'mobile', confirm: yes }).catch(
          (error: unknown) => error,
        )
      },
      confirm: yes,
    })
    await expect(pairing).rejects.toMatchObject({ code: 'name_taken', message: expect.stringContaining('"Laptop"') as string })
    expect(await joining).toMatchObject({ code: 'check_phrase_mismatch', message: expect.stringContaining('taken') as string })
    expect(await home.store.readIdentity()).toBeNull()
  })

  it('a phrase that the first device does not confirm ends it at once on the other', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const home = relay.keep(await openHome(`${relay.folder}/declined`))
    let joining: Promise<unknown> = Promise.resolve()
    const pairing = laptop.pair({
      onCode(code) {
        joining = Sealpost.join({ home, server: relay.url, code, name: 'x', device_type: 'mobile', confirm: yes }).catch(
          (error: unknown) => error,
        )
      },
      confirm: () => Promise.resolve(false),
    })
    await expect(pairing).rejects.toMatchObject({ code: 'check_phrase_mismatch' })
    expect(await joining).toMatchObject({ code: 'check_phrase_mismatch' })
  })
})
