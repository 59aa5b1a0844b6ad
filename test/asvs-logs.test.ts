/**
 * What a running relay writes into its log at its most talkative level (OWASP ASVS 5.0, V16; `docs/asvs.md`): secrets and line ends
 * go in by every field that there is, and none comes out.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type Bytes, createAssertion, fromBase64url, ROUTES, type Route, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { createLog } from '../packages/server/src/telemetry/log.ts'
import { query, withDatabase } from '@sealpost/testing/components/test-database'
import { startRelay } from '@sealpost/testing/components/programs'
import { say, type Seat, useRelayWorld } from '@sealpost/testing/relays/hostile-relay'
import { sendRaw } from '@sealpost/testing/clients/raw-http'

const world = useRelayWorld()

type Line = { level: number; time: number; msg: string; [member: string]: unknown }
const linesOf = (text: string): Line[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line)
const newCanary = (): string => `canary${randomBytes(12).toString('hex')}`

/** As it is: no client of ours would send some of this. */
function ask(method: string, path: string, headers: Record<string, string>, body?: string): Promise<number> {
  return new Promise((resolve) => {
    const sent = request({ method, host: '127.0.0.1', port: new URL(world.url).port, path, headers, agent: false }, (answer) => {
      answer.resume()
      answer.on('end', () => resolve(answer.statusCode ?? 0))
      if (answer.headers['content-type']?.startsWith('text/event-stream') === true) {
        resolve(answer.statusCode ?? 0)
        sent.destroy()
      }
    })
    sent.on('error', () => resolve(0))
    if (body !== undefined) sent.setHeader('content-length', Buffer.byteLength(body))
    sent.end(body)
  })
}

function signSeedOf(seat: Seat): Bytes {
  const database = new DatabaseSync(join(seat.dir, 'sealpost.sqlite'), { readOnly: true })
  try {
    return new Uint8Array((database.prepare('select sign_seed from identity').get() as { sign_seed: Uint8Array }).sign_seed)
  } finally {
    database.close()
  }
}

async function socketSays(...messages: (string | Buffer)[]): Promise<void> {
  const socket = new WebSocket(`${world.url.replace('http', 'ws')}/api/socket`, 'sealpost.1')
  socket.on('error', () => {})
  socket.once('open', () => {
    for (const message of messages) socket.send(message)
  })
  await new Promise((resolve) => socket.once('close', resolve))
}

describe('the log of a running relay, at the level debug', { timeout: 60_000 }, () => {
  test('no secret and no line end of anybody comes out of it, whatever field it went in by (16.2.5, 16.4.1, 14.2.4)', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    const canary = newCanary()
    const evil = `${canary}\r\n{"level":60,"time":1,"msg":"${canary}"}`
    await say(laptop, 'notes', evil)

    const seed = signSeedOf(laptop)
    const { server_key } = (await (await fetch(`${world.url}/.well-known/sealpost.json`)).json()) as { server_key: string }
    const assert = (purpose: string) =>
      createAssertion(nodeCrypto, seed, { purpose, aud: server_key, user_id: laptop.device.user_id, signer: laptop.id }, Date.now())
    const signed = await assert('token')
    const granted = await fetch(`${world.url}/api/auth/token`, { method: 'POST', headers: json, body: JSON.stringify(signed) })
    const { access_token, refresh_token } = (await granted.json()) as { access_token: string; refresh_token: string }
    // a refresh token whose time is over comes again: what is audited names no token
    for (const _ of [1, 2, 3]) {
      const body = JSON.stringify({ ...(await assert('refresh')), refresh_token })
      await fetch(`${world.url}/api/auth/refresh`, { method: 'POST', headers: json, body })
      await world.sql(`update refresh_family set rotated_at = rotated_at - 3600000`)
    }

    const mailbox = toBase64url(nodeCrypto.random(16))
    const quoted = JSON.stringify(evil)
    const escaped = encodeURIComponent(evil)
    for (const row of Object.values(ROUTES) as Route[]) {
      const paths = [
        row.path.replace(/\{\w+\}/g, mailbox),
        row.path.replace(/\{\w+\}/g, escaped),
        `${row.path.replace(/\{\w+\}/g, mailbox)}?${escaped}=${escaped}`,
      ]
      for (const path of paths)
        for (const authorization of [`Bearer ${access_token}`, `Bearer ${canary}`, `Basic ${canary}`]) {
          const headers = {
            authorization,
            'user-agent': canary,
            referer: `https://${canary}.example/`,
            cookie: `a=${canary}`,
            'x-request-id': canary.slice(0, 4),
            'if-match': canary,
            'last-event-id': canary,
            'idempotency-key': canary,
          }
          await ask(
            row.method,
            path,
            row.body === 'none'
              ? headers
              : { ...headers, 'content-type': row.body === 'bytes' ? 'application/octet-stream' : 'application/json' },
            row.body === 'none' ? undefined : `{"body":${quoted},"sig":${quoted},${quoted}:${quoted},"events":[{"stream_id":${quoted}}]}`,
          )
        }
    }
    for (const text of [
      `GET /${canary}\r\n\r\n`,
      `GET / HTTP/1.1\r\nHost: ${canary}\r\nX: ${canary}\r\n${canary}\r\n\r\n`,
      `${canary} / HTTP/1.1\r\n\r\n`,
      `POST /api/log HTTP/1.1\r\nHost: x\r\nContent-Length: ${canary}\r\n\r\n${canary}`,
    ])
      await sendRaw(world.url, text, 3_000)
    await socketSays(canary)
    await socketSays(JSON.stringify({ type: 'client_hello', versions: [1], client_eph: canary, client_nonce: evil }))
    await socketSays(Buffer.from(evil))
    await ask('GET', `/api/socket?${canary}`, {
      connection: 'upgrade',
      upgrade: 'websocket',
      origin: `https://${canary}.example`,
      'sec-websocket-protocol': canary,
      'sec-websocket-key': canary,
      'sec-websocket-version': '13',
    })
    await phone.close()
    await laptop.device.revoke(phone.id)

    const log = world.log()
    // there is something to look through
    expect(log).toContain('/api/log')
    expect(log).toContain('refresh_token_reused')
    expect(linesOf(log).length).toBeGreaterThan(200)
    const secrets = [
      canary,
      access_token,
      refresh_token,
      signed.sig,
      laptop.recovery_words.slice(0, 40),
      seed,
      fromBase64url(access_token.split('.')[2] ?? ''),
    ]
    for (const secret of secrets)
      for (const form of ['latin1', 'hex', 'base64', 'base64url'] as const)
        expect([
          String(secret).slice(0, 12),
          form,
          log.includes(
            Buffer.from(secret as string)
              .toString(form)
              .replace(/=+$/, ''),
          ),
        ]).toEqual([String(secret).slice(0, 12), form, false])
    // nor the mailbox of a pairing, nor the address of the database
    expect(log).not.toContain(mailbox)
    expect(log).not.toContain(new URL(world.database_url).pathname)
  })

  test('each entry is one line of JSON: when, in ms of UTC, how grave, and what; of a request also which one (16.2.1, 16.2.2, 16.2.4)', async () => {
    const request_id = 'asvs-request-1'
    const before = Date.now()
    await ask('GET', '/api/user', { 'x-request-id': request_id })
    const lines = linesOf(world.log())
    for (const line of lines) {
      expect([20, 30, 40, 50]).toContain(line.level)
      expect(line.time).toBeGreaterThan(before - 600_000)
      expect(line.time).toBeLessThanOrEqual(Date.now())
      expect(line.msg).toMatch(/^\S[^\r\n]*$/)
    }
    expect(lines.filter((line) => line.request_id === request_id)).toEqual([
      expect.objectContaining({ method: 'GET', route: '/api/user', status: 401, ms: expect.any(Number), msg: 'request' }),
    ])
  })

  test('a failure inside is written down with its request; who asked is told a code and nothing else (16.3.4, 16.5.1, 16.5.2)', async () => {
    const laptop = await world.create('laptop')
    const { access_token } = await laptop.device.accessToken()
    await laptop.close()
    const name = new URL(world.database_url).pathname.slice(1)
    const admin = withDatabase(world.database_url, 'postgres')
    await query(admin, `alter database ${name} allow_connections false`)
    await query(admin, `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`)
    try {
      const request_id = `asvs-${randomBytes(6).toString('hex')}`
      const answer = await fetch(`${world.url}/api/user`, {
        headers: { authorization: `Bearer ${access_token}`, 'x-request-id': request_id },
      })
      const text = await answer.text()
      expect([500, 503]).toContain(answer.status)
      expect(JSON.parse(text)).toMatchObject({ code: expect.stringMatching(/^(unavailable|internal)$/), request_id })
      expect(text).not.toMatch(/\bat .*\.[tj]s:|select |postgres|sealpost_test|ECONN|pg_/i)
      const failed = linesOf(world.log()).filter((line) => line.request_id === request_id && line.level === 50)
      expect(failed).toEqual([
        expect.objectContaining({ msg: 'a request failed', err: expect.objectContaining({ code: expect.any(String) }) }),
      ])
    } finally {
      await query(admin, `alter database ${name} allow_connections true`)
    }
    await expect.poll(async () => (await fetch(`${world.url}/readyz`)).status, { timeout: 10_000 }).toBe(200)
  })
})

const json = { 'content-type': 'application/json' }

test('a text in the log is never a format: what stands for a value stays as it is (1.3.10)', () => {
  let written = ''
  const log = createLog('debug', { write: (line: string) => (written += line) })
  const text = '%s %d %i %f %j %o %O %c %% {0} ${x} %n'
  log.warn({ err: new Error(text), text }, text)
  expect(linesOf(written)).toEqual([expect.objectContaining({ msg: text, text, err: expect.objectContaining({ message: text }) })])
})

test('a relay writes its log to stderr and nowhere else; stdout is for people, and no file is a log (16.2.3)', {
  timeout: 60_000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), 's-'))
  try {
    using relay = await startRelay(join(folder, 'data'), { SEALPOST_LOG_LEVEL: 'debug' })
    await (await fetch(`${relay.url}/readyz`)).text()
    relay.kill('SIGTERM')
    const { code, stdout, stderr } = await relay.ended
    expect(code).toBe(0)
    const lines = linesOf(stderr)
    expect(lines.some((line) => line.msg === 'stopped')).toBe(true)
    expect(stdout.toString()).not.toMatch(/"level":/)
    const files = (await readdir(join(folder, 'data'), { recursive: true })).filter((name) => /\.log$|\.csv$|(^|\/)log\//i.test(name))
    expect(files).toEqual([])
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
