/**
 * What an operator cannot do (G24), beside acting without a trace (`admin-audit.test.ts`) and in a role that is not theirs (`admin-matrix.test.ts`):
 * read a payload, and write into a device log. That events which the server made, changed, dropped or put in another order are noticed by the
 * device that receives them is shown by `test/hostile-server.test.ts`, and by `test/restored-server.test.ts` for a server that went back in time.
 */
import { randomBytes } from 'node:crypto'
import { createAssertion, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import {
  append,
  createAccount,
  makeDevice,
  makeEntry,
  makeRun,
  openSession,
  type TestChange,
} from '@sealpost/testing/clients/store-accounts'
import { requestFor, ROUTES_OF_ADMINS } from '@sealpost/testing/clients/admin-requests'
import { useAdminServer } from '@sealpost/testing/relays/admin-server'

const server = useAdminServer()

describe('an operator', () => {
  it('no payload, name of a stream or box of a device is in an answer or a row', async () => {
    const mark = randomBytes(24)
    const stream_id = `stream-${randomBytes(6).toString('hex')}`
    const account = await server.account(2)
    const session_id = await openSession(server.store, account.user_no, 1)
    const payload = Buffer.concat([mark, nodeCrypto.random(200), mark])
    const run = makeRun({ user_no: account.user_no, device_no: 1, session_id, first_seq: 1, epoch: account.log_seq }, [
      { payload, stream_id },
    ])
    expect(await server.store.ingest([run], true)).toMatchObject([{ is: 'stored' }])
    const { boxes, entry } = await append(server.store, account, { type: 'rotate_keys' })

    let answers = ''
    for (const [name, row] of ROUTES_OF_ADMINS) {
      // all that is about the account; it is deleted last
      if (name === 'delete_user' || row.auth !== 'token') continue
      const answer = await server.ask(name, { ...(await requestFor(server, name, account)), token: await server.tokenOf('owner') })
      expect(answer.status, name).toBeLessThan(400)
      answers += answer.text
    }
    const token = await server.tokenOf('owner')
    answers += (await server.ask('list_sessions', { token, query: { user_id: account.user_id } })).text
    answers += (await server.ask('list_audit', { token, query: { user_id: account.user_id, limit: '1000' } })).text
    answers += (await server.ask('delete_user', { token, params: { user_id: account.user_id } })).text
    const rows = JSON.stringify(await server.sql('select a::text as row from audit a'))
    expect(answers).toContain(account.user_id)
    const hidden = [
      mark.toString('base64url').slice(0, 30),
      mark.toString('base64').slice(0, 30),
      mark.toString('hex'),
      stream_id,
      toBase64url(entry.body).slice(40, 100),
      ...Object.values(boxes).map((box) => box.slice(0, 60)),
    ]
    for (const text of [answers, rows]) for (const part of hidden) expect(text.includes(part)).toBe(false)
    // ids stand in the audit log as hashes alone
    expect(rows).not.toContain(account.user_id)
    for (const { device_id } of account.devices) expect(rows).not.toContain(device_id)
  })
})

it('adds or revokes no device: the log is what its devices wrote, whatever an owner did', async () => {
  const theirs = await createAccount(server.store, 2)
  const logOf = () => server.sql('select log_seq, body, sig, entry_hash from log_entry where user_no = $1 order by 1', [theirs.user_no])
  const before = await logOf()
  const { user_id, devices } = theirs
  const device = { user_id, device_id: devices[1]!.device_id }
  for (const name of ['suspend_user', 'resume_user', 'disconnect_user'] as const)
    await server.as('owner', name, { params: { user_id }, json: {} })
  for (const name of ['suspend_device', 'disconnect_device', 'resume_device'] as const)
    await server.as('owner', name, { params: device, json: {} })
  await server.as('owner', 'set_user_quota', { params: { user_id }, json: { bytes: 1, streams: 1, devices: 1 } })
  expect(await logOf()).toEqual(before)

  // with what an owner has: its key, its token, and any entry that it can sign
  const owner = await server.admin('owner')
  const token = await server.token(owner)
  const mine = makeDevice()
  const claims = { purpose: 'log', aud: toBase64url(server.server_key), user_id, signer: devices[0]!.device_id }
  const proofs = [await server.assertion(owner), await createAssertion(nodeCrypto, owner.sign_seed, claims, Date.now())]
  const changes: TestChange[] = [
    { type: 'add_device', device: mine },
    { type: 'revoke_device', revoked: [{ device_id: device.device_id }] },
  ]
  for (const signer of [{ ...devices[0]!, sign_seed: owner.sign_seed }, mine])
    for (const change of changes)
      for (const proof of proofs)
        for (const repair of [{}, { repair: true }]) {
          const { entry, boxes } = makeEntry(theirs, change, signer)
          const json = { body: toBase64url(entry.body), sig: toBase64url(entry.sig), boxes, proof, ...repair }
          const { status } = await server.door.ask('POST', '/api/log', { token, json })
          expect(status).toBeGreaterThanOrEqual(400)
          expect(status).toBeLessThan(500)
        }
  const path = `/api/devices/${device.device_id}`
  const { entry, boxes } = makeEntry(theirs, { type: 'revoke_device', revoked: [{ device_id: device.device_id }] }, devices[0])
  const revoke = { body: toBase64url(entry.body), sig: toBase64url(new Uint8Array(64)), boxes }
  expect((await server.door.ask('DELETE', path, { token, json: revoke })).status).toBe(401)
  expect(await logOf()).toEqual(before)
})
