import { createAssertion, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { expect, it } from 'vitest'
import { makeDevice, makeEntry, type TestAccount, type TestChange, wire } from '@sealpost/testing/clients/store-accounts'
import { useEventServer } from '@sealpost/testing/relays/event-server'

const server = useEventServer()

type Socket = Awaited<ReturnType<typeof server.connect>>

const rotate: TestChange = { type: 'rotate_keys' }
const revoke = (device_id: string): TestChange => ({ type: 'revoke_device', revoked: [{ device_id }] })

let last_id = 0
/** By `log_append`, signed by the device of the socket. */
async function append(socket: Socket, account: TestAccount, change: TestChange) {
  const id = ++last_id
  const signer = account.devices.find(({ device_id }) => device_id === socket.identity.device_id)
  socket.send({ type: 'log_append', id, ...wire(makeEntry(account, change, signer)) })
  const { head } = await socket.next('log_result', (message) => message.head.id === id)
  account.log_seq = head.log_seq
  account.log_head = Buffer.from(head.log_head, 'base64url')
  return head
}

/** An account whose third device has used up the hour by its socket. */
async function robbed() {
  const account = await server.account(3)
  const thief = await server.connect(account, 2)
  while (account.log_seq < 30) expect(await append(thief, account, rotate)).toMatchObject({ ok: true })
  expect(await append(thief, account, rotate)).toMatchObject({ ok: false, code: 'rate_limited', log_seq: 30 })
  return { account, thief }
}

it('C4: a thief who uses up the hour by socket is revoked by socket', async () => {
  const { account, thief } = await robbed()
  const owner = await server.connect(account, 0)
  expect(await append(owner, account, rotate)).toMatchObject({ ok: false, code: 'rate_limited' })
  expect(await append(owner, account, revoke(account.devices[2]!.device_id))).toMatchObject({ ok: true, log_seq: 31 })
  expect(await thief.closed).toMatchObject({ code: 4403 })
})

it('C4: and over REST, where what is refused says when the oldest entry is an hour old', async () => {
  const { account } = await robbed()
  await server.store.pools.main.query('update log_entry set stored_at = stored_at - 3000000 where user_no = $1 and log_seq = 1', [
    account.user_no,
  ])
  const post = async () =>
    server.ask('POST', '/api/log', null, { ...wire(makeEntry(account, rotate)), proof: await server.assertion(account, 0, 'log') })
  const refused = await post()
  expect(refused).toMatchObject({ status: 429, body: { code: 'rate_limited', log_seq: 30 } })
  expect(Number(refused.headers['retry-after'])).toBeGreaterThan(570)
  expect(Number(refused.headers['retry-after'])).toBeLessThanOrEqual(600)
  const token = await server.token(account, 1)
  const { device_id } = account.devices[2]!
  const signed = wire(makeEntry(account, revoke(device_id), account.devices[1]))
  expect(await server.ask('DELETE', `/api/devices/${device_id}`, token, signed)).toMatchObject({ status: 200, body: { log_seq: 31 } })
  expect((await post()).status).toBe(409)
})

it('C4: the root comes back though the hour is used up and the owner was revoked', async () => {
  const { account, thief } = await robbed()
  for (const { device_id } of account.devices.slice(0, 2)) {
    expect(await append(thief, account, revoke(device_id))).toMatchObject({ ok: true })
    account.devices = account.devices.filter((one) => one.device_id !== device_id)
  }
  const device = makeDevice()
  const claims = { purpose: 'log', aud: toBase64url(server.server_key), user_id: account.user_id, signer: device.device_id }
  const proof = await createAssertion(nodeCrypto, device.sign_seed, claims, Date.now())
  const answer = await server.ask('POST', '/api/log', null, { ...wire(makeEntry(account, { type: 'recover', device })), proof })
  expect(answer).toMatchObject({ status: 200, body: { log_seq: 33 } })
  expect(await thief.closed).toMatchObject({ code: 4403 })
})
