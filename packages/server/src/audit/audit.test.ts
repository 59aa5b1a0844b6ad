import { fromBase64url, toBase64url, uuidToBytes } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createStore, type PostgresStore } from '../store/store.ts'
import { query, useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createAuditJobs } from '../jobs/audit.ts'
import { type AuditFault, type AuditHead, type AuditRow, hashAuditRow, verifyAudit } from './chain.ts'
import { type AuditEntry, deviceName, userHash } from './entry.ts'
import { createAudit } from './recorder.ts'

const database = useDatabase()
const server_sign_seed = nodeCrypto.random(32)
const server_key = nodeCrypto.ed25519Public(server_sign_seed)
const sign = (bytes: Uint8Array): Uint8Array => nodeCrypto.ed25519Sign(server_sign_seed, bytes)
let store: PostgresStore

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
})
afterAll(() => store.close())

const sql = (text: string) => query(database.url, text)
/** What someone with rights on the table can do: the trigger is against mistakes. */
const forge = async (text: string): Promise<void> => {
  await sql('alter table audit disable trigger user')
  await sql(text)
  await sql('alter table audit enable trigger user')
}

async function* rows(): AsyncIterable<AuditRow> {
  for (let from = 0; ; ) {
    const page = await store.readAudit(from, false, {}, 100)
    yield* page
    const last = page.at(-1)
    if (last === undefined) return
    from = last.seq
  }
}
async function verify(witnesses: AuditHead[] = []): Promise<AuditFault[]> {
  const ends = await store.readAuditEnds()
  return (await verifyAudit(rows(), { ...ends, server_key, witnesses })).faults
}
const entry = (n: number): AuditEntry => ({
  actor: 'server',
  action: 'rate_limited',
  outcome: 'refused',
  target: `limit:${n}`,
  user_id: toBase64url(nodeCrypto.random(32)),
  origin: { request_id: randomUUID(), address: '203.0.113.7' },
  detail: { n, text: 'ä "quoted" \u{1f600}' },
})

/** Begins an empty log with `count` rows. */
async function fill(count: number): Promise<void> {
  await sql('alter table audit disable trigger user; truncate audit; alter table audit enable trigger user')
  await sql(`delete from audit_checkpoint; update audit_head set seq = 0, hash = decode(repeat('00', 32), 'hex')`)
  await store.appendAudit(Array.from({ length: count }, (_, n) => entry(n)))
}

describe('the chain', () => {
  it('is made by the database as this side computes it', async () => {
    await fill(3)
    await store.appendAudit([{ actor: 'root', action: 'account_created', outcome: 'done' }])
    let before: Uint8Array = new Uint8Array(32)
    let count = 0
    for await (const row of rows()) {
      expect(toBase64url(hashAuditRow(before, row))).toBe(toBase64url(row.hash))
      expect(row.seq).toBe(++count)
      before = row.hash
    }
    expect(count).toBe(4)
    expect(await verify()).toEqual([])
  })

  it('is one chain, whoever appends at the same time', async () => {
    await fill(0)
    const nodes = await Promise.all([0, 1].map(() => createStore({ connection: database.connection, log: silent })))
    await Promise.all(Array.from({ length: 200 }, (_, n) => nodes[n % 2]!.appendAudit([entry(n)])))
    await Promise.all(nodes.map((node) => node.close()))
    expect((await store.readAuditEnds()).head.seq).toBe(200)
    expect(await verify()).toEqual([])
  })

  it('refuses updates, deletions and truncation', async () => {
    await fill(2)
    for (const text of [`update audit set actor = 'x'`, 'delete from audit', 'truncate audit'])
      await expect(sql(text)).rejects.toThrow('append-only')
    expect(await verify()).toEqual([])
  })
})

describe('what was done to it is found', () => {
  it.each<[string, string, Partial<AuditFault>]>([
    ['another actor', `update audit set actor = 'root' where seq = 5`, { seq: 5, is: 'changed' }],
    ['another outcome', `update audit set outcome = 'done' where seq = 5`, { seq: 5, is: 'changed' }],
    ['another time', 'update audit set at = at + 1 where seq = 5', { seq: 5, is: 'changed' }],
    ['another account', `update audit set user_hash = decode(repeat('11', 32), 'hex') where seq = 5`, { seq: 5, is: 'changed' }],
    ['no account', 'update audit set user_hash = null where seq = 5', { seq: 5, is: 'changed' }],
    [
      'text moved from one column to the next',
      `update audit set target = detail, detail = target where seq = 5`,
      { seq: 5, is: 'changed' },
    ],
    ['a row taken out', 'delete from audit where seq = 5', { seq: 5, is: 'gap' }],
    ['several taken out', 'delete from audit where seq between 4 and 7', { seq: 4, is: 'gap' }],
    ['the last row taken away', 'delete from audit where seq = 10', { seq: 10, is: 'cut' }],
    ['the first row taken away', 'delete from audit where seq = 1', { seq: 2, is: 'cut' }],
    ['all taken away', 'delete from audit', { is: 'cut' }],
    [
      'two exchanged',
      'update audit set seq = case seq when 4 then -4 when 5 then 4 end where seq in (4, 5); update audit set seq = 5 where seq = -4',
      { seq: 4, is: 'changed' },
    ],
    [
      'a row put in at the end',
      `insert into audit select 11, at, actor, action, outcome, target, request_id, address, detail, user_hash, hash from audit where seq = 10`,
      { seq: 11, is: 'changed' },
    ],
  ])('%s', async (_, text, expected) => {
    await fill(10)
    expect(await verify()).toEqual([])
    await forge(text.replace('-4', '1000').replace('-4', '1000'))
    expect((await verify())[0]).toMatchObject(expected)
  })

  it('a row that is changed with its hash breaks the next link', async () => {
    await fill(10)
    const changed: AuditRow[] = []
    for await (const row of rows()) changed.push(row)
    const forged = { ...changed[4]!, actor: 'root' }
    const hash = Buffer.from(hashAuditRow(changed[3]!.hash, forged)).toString('hex')
    await forge(`update audit set actor = 'root', hash = decode('${hash}', 'hex') where seq = 5`)
    expect((await verify())[0]).toMatchObject({ seq: 6, is: 'changed' })
  })

  it('a cut that takes the head along shows against a checkpoint, and without it against a head that was kept elsewhere', async () => {
    await fill(10)
    const { head } = await store.readAuditEnds()
    expect(await store.addAuditCheckpoint(sign, { rows: 1, ms: 0 })).toMatchObject({ seq: 10 })
    const cut = `delete from audit where seq > 7; update audit_head set seq = 7, hash = (select a.hash from audit a where a.seq = 7)`
    await forge(cut)
    expect(await verify()).toMatchObject([{ seq: 10, is: 'cut' }])
    await sql('delete from audit_checkpoint')
    expect(await verify()).toEqual([])
    expect(await verify([head])).toMatchObject([{ seq: 10, is: 'witness' }])
  })

  it('a log that was written anew does not fit a checkpoint, nor a kept head; a checkpoint of another key is none', async () => {
    await fill(10)
    const { head } = await store.readAuditEnds()
    await store.addAuditCheckpoint(sign, { rows: 1, ms: 0 })
    const kept = (await store.readAuditEnds()).checkpoints
    await fill(10)
    expect(await verify([head])).toMatchObject([{ seq: 10, is: 'witness' }])
    const { seq, at, hash, sig } = kept[0]!
    const hex = (bytes: Uint8Array): string => `decode('${Buffer.from(bytes).toString('hex')}', 'hex')`
    await sql(`insert into audit_checkpoint values (${seq}, ${at}, ${hex(hash)}, ${hex(sig)})`)
    expect(await verify()).toMatchObject([{ seq: 10, is: 'checkpoint' }])
    await sql(`update audit_checkpoint set hash = (select h.hash from audit_head h)`)
    expect(await verify()).toMatchObject([{ seq: 10, is: 'checkpoint', says: expect.stringContaining('signature') }])
  })
})

describe('retention', () => {
  const age = (seq: number) => sql(`update audit_checkpoint set at = at - 1000 where seq = ${seq}`)

  it('removes rows up to a checkpoint that is old enough, and what is left verifies from there', async () => {
    await fill(10)
    await store.addAuditCheckpoint((bytes) => sign(bytes), { rows: 1, ms: 0 })
    await store.appendAudit([entry(11), entry(12)])
    await store.addAuditCheckpoint(sign, { rows: 1, ms: 0 })
    await store.appendAudit([entry(13)])
    expect(await store.removeOldAudit(60_000)).toMatchObject({ is: 'done', rows: 0, more: false })
    // the age is that of the checkpoint, which its signature covers: time has to pass
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(await store.removeOldAudit(2)).toMatchObject({ is: 'done', rows: 10, more: true })
    expect(await verify()).toEqual([])
    expect(await store.removeOldAudit(2)).toMatchObject({ is: 'done', rows: 2 })
    expect(await verify()).toEqual([])
    expect((await store.readAuditEnds()).checkpoints.map(({ seq }) => seq)).toEqual([12])
    await forge('delete from audit')
    expect(new Set((await verify()).map(({ is }) => is))).toEqual(new Set(['cut']))
    await age(12)
    expect((await verify()).map(({ is }) => is)).toContain('checkpoint')
  })

  it('jobs sign when rows are due and remove what is old; without a rule nothing is removed', async () => {
    await fill(3)
    const turn = { wanted: () => true, batch: <T>(work: () => Promise<T>) => work() }
    const [checkpoint, ...others] = createAuditJobs(store, sign, null)
    expect(others).toEqual([])
    expect(await checkpoint!.run(turn)).toEqual({ rows: 1 })
    expect(await checkpoint!.run(turn)).toEqual({ rows: 0 })
    await store.appendAudit([entry(4)])
    expect(await checkpoint!.run(turn)).toEqual({ rows: 0 })
    const [, old] = createAuditJobs(store, sign, 0)
    expect(await old!.run(turn)).toMatchObject({ rows: 3 })
    expect(await verify()).toEqual([])
  })
})

describe('what is noted', () => {
  const noted = async () =>
    (await store.readAudit(0, false, {}, 1_000)).map(({ target, detail }) => ({ target, ...JSON.parse(detail ?? '{}') }))

  it('the same is one row with a count', async () => {
    await fill(0)
    const audit = createAudit(store, silent)
    for (let i = 0; i < 500; i++) audit.note({ actor: 'stranger', action: 'token_refused', outcome: 'refused', target: `route${i % 2}` })
    await audit.close()
    expect(await noted()).toEqual([
      { target: 'route0', count: 250 },
      { target: 'route1', count: 250 },
    ])
  })

  it('a flood of different things is a bounded number of rows, and the rest a number', async () => {
    await fill(0)
    const audit = createAudit(store, silent)
    for (let i = 0; i < 50_000; i++) audit.note({ actor: 'stranger', action: 'token_refused', outcome: 'refused', target: `route${i}` })
    await audit.close()
    const all = await store.readAudit(0, false, {}, 1_000)
    expect(all.length).toBeLessThan(200)
    const lost = all.filter(({ action }) => action === 'audit_lost').reduce((sum, { detail }) => sum + JSON.parse(detail!).count, 0)
    expect(lost + all.filter(({ action }) => action === 'token_refused').length).toBe(50_000)
    expect(await verify()).toEqual([])
  })

  it('is not lost while what was noted before is written, nor when that fails', async () => {
    await fill(0)
    const written: (() => Promise<void>)[] = []
    const slow = {
      appendAudit: (entries: readonly AuditEntry[]) =>
        new Promise<void>((resolve, reject) => {
          written.push(() => store.appendAudit(entries).then(resolve, reject))
          if (written.length === 2) reject(new Error('down'))
        }),
    }
    const audit = createAudit(slow, silent)
    const note = (target: string): void => audit.note({ actor: 'stranger', action: 'token_refused', outcome: 'refused', target })
    note('before')
    const first = audit.flush()
    await expect.poll(() => written.length).toBe(1)
    for (const target of ['before', 'meanwhile']) note(target)
    await written[0]!()
    await first
    // the second does not come through
    await audit.flush()
    note('after')
    const last = audit.flush()
    await expect.poll(() => written.length).toBe(3)
    await written[2]!()
    await last
    await audit.close()
    expect((await noted()).map(({ target }) => String(target)).toSorted()).toEqual(['after', 'before', 'before', 'meanwhile'])
  })

  it('waits while the database does not answer', async () => {
    await fill(0)
    let down = true
    const audit = createAudit({ appendAudit: (entries) => (down ? Promise.reject(new Error('down')) : store.appendAudit(entries)) }, silent)
    audit.note(entry(1))
    await audit.flush()
    await expect(audit.write(entry(2))).rejects.toThrow('down')
    down = false
    await audit.close()
    expect(await noted()).toMatchObject([{ target: 'limit:1' }])
  })
})

it('accounts and devices stand in it as hashes of their ids', async () => {
  await fill(0)
  const user_id = toBase64url(nodeCrypto.random(32))
  const device_id = randomUUID()
  await store.appendAudit([
    { actor: deviceName(device_id), action: 'device_added', outcome: 'done', user_id, target: deviceName(device_id) },
  ])
  const [row] = await store.readAudit(0, false, { user_id }, 10)
  expect(toBase64url(row!.user_hash!)).toBe(toBase64url(userHash(user_id)))
  const text = JSON.stringify((await store.pools.main.query('select a::text as row from audit a')).rows)
  expect(text).not.toContain(device_id)
  expect(text).not.toContain(user_id)
  expect(text).not.toContain(Buffer.from(fromBase64url(user_id, 32)).toString('hex'))
  expect(text).not.toContain(Buffer.from(uuidToBytes(device_id)).toString('hex'))
})
