import { afterAll, describe, expect, it } from 'vitest'
import { query, withDatabase } from '@sealpost/testing/components/test-database'
import { Sealpost, type StreamEvent } from '../src/index.ts'
import { openHome } from '../src/node.ts'
import { bytes, text, useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()
const copies: string[] = []

afterAll(async () => {
  await relay.stop()
  for (const url of copies)
    await query(withDatabase(url, 'postgres'), `drop database if exists ${new URL(url).pathname.slice(1)} with (force)`)
})

/** The database as it is now, under another name: a cold copy to come back to. */
async function copyDatabase(): Promise<string> {
  const name = new URL(relay.database).pathname.slice(1)
  const url = withDatabase(relay.database, `${name}_copy${copies.length}`)
  await query(withDatabase(relay.database, 'postgres'), `create database ${name}_copy${copies.length} template ${name}`)
  copies.push(url)
  return url
}

async function open(name: string): Promise<Sealpost> {
  const folder = relay.last(name)
  if (folder === undefined) throw new Error(`no home of ${name}`)
  return relay.keep(await Sealpost.open({ home: await openHome(folder) }))
}

async function until(events: AsyncIterable<StreamEvent>, last: string): Promise<string[]> {
  const out: string[] = []
  for await (const event of events) {
    out.push(text(event))
    if (out.at(-1) === last) break
  }
  return out
}

describe('a server that came back from an older copy', () => {
  it('gets the device list back from the first client that knows it, and nothing is handed over twice (R10, C6)', async () => {
    const { sealpost } = await relay.create('laptop')
    await sealpost.stream('main').send(bytes('1'))
    await sealpost.close()
    await relay.stop()
    const copy = await copyDatabase()

    await relay.start()
    const laptop = await open('laptop')
    const phone = await relay.pair(laptop, 'phone')
    await laptop.stream('main').send(bytes('2'))
    await laptop.stream('main').send(bytes('3'))
    expect(await until(phone.stream('main').events(), '3')).toEqual(['1', '2', '3'])
    await phone.close()
    await laptop.close()
    await relay.stop()

    await relay.start({ DATABASE_URL: copy })
    // the server does not know this device: it is refused, brings its entries back, and comes in
    const phoneAgain = await open('phone')
    await expect.poll(() => phoneAgain.state, { timeout: 10_000 }).toBe('live')
    const laptopAgain = await open('laptop')
    await laptopAgain.stream('main').send(bytes('4'))
    await phoneAgain.stream('main').send(bytes('5'))
    const got = await until(phoneAgain.stream('main').events(), '4')
    expect(got.filter((line) => /^\d$/.test(line))).toEqual(['4'])
    expect(got).toContain('reset')
    expect((await until(laptopAgain.stream('main').events(), '5')).filter((line) => /^\d$/.test(line))).toEqual(['5'])
    expect((await laptopAgain.devices()).map((device) => [device.name, device.revoked])).toEqual([
      ['laptop', null],
      ['phone', null],
    ])
    expect((await laptopAgain.status()).log_seq).toBeGreaterThan(1)
    expect(laptopAgain.failure).toBeNull()
  }, 60_000)
})
