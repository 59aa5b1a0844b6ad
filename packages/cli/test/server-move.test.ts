import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { toBase64url } from '@sealpost/protocol'
import { readConfig, startServer } from '@sealpost/server'
import { describe, expect, test } from 'vitest'
import { silent } from '@sealpost/testing/relays/silent-log'
import { findFreePort } from '@sealpost/testing/components/free-port'
import { copyHome, run, sealpost, startSealpost, useWorld } from '@sealpost/testing/clients/cli-world'

const world = useWorld()

const serverOf = async (home: string): Promise<unknown> =>
  JSON.parse((await sealpost(['server', '--home', home, '--json'])).stdout.toString())

describe('sealpost server', () => {
  test('shows address, key and fingerprint of the server, also when it is away', async () => {
    const home = await copyHome(world.phone, join(world.folder, 'shown'))
    const server_key = toBase64url(world.relay.server_key)
    const known = { server: world.relay.url, server_key, fingerprint: expect.stringMatching(/^([0-9a-f]{4} ?){4}$/) }
    expect(await serverOf(home)).toEqual(known)
    await world.relay.stop()
    try {
      expect(await serverOf(home)).toEqual(known)
      expect((await sealpost(['server', '--home', home])).stdout.toString()).toMatch(/^server .*\nkey .*\nkey fingerprint .*\n$/)
    } finally {
      await world.relay.start()
    }
  })

  test('refuses an address where another key answers, or that is given with another key (5): nothing is stored', async () => {
    const home = await copyHome(world.phone, join(world.folder, 'other'))
    const db = new DatabaseSync(join(home, 'sealpost.sqlite'))
    db.prepare('update identity set server_key = ?, server_url = ?').run(new Uint8Array(32).fill(3), 'http://127.0.0.1:9')
    db.close()
    const pin = toBase64url(world.relay.server_key)
    for (const url of [world.relay.url, `${world.relay.url}/#${pin}`]) {
      const refused = await run(['server', url, '--home', home])
      expect(refused).toMatchObject({ code: 5, stderr: expect.stringMatching(/key[^]*nothing was changed\n {2}\w/) })
    }
    expect(await serverOf(home)).toMatchObject({ server: 'http://127.0.0.1:9' })
  })

  test('refuses an address where nobody answers (69), or that is none (2)', async () => {
    const home = await copyHome(world.phone, join(world.folder, 'nobody'))
    expect(await run(['server', 'http://127.0.0.1:9', '--home', home])).toMatchObject({ code: 69 })
    expect(await run(['server', 'relay', '--home', home])).toMatchObject({ code: 2 })
    expect(await serverOf(home)).toMatchObject({ server: world.relay.url })
  })

  test('follows the server; a process that holds the connection takes the new address too', async () => {
    using tail = startSealpost(['tail', '--home', world.phone, '--stream', 'moved', '--count', '1'])
    await expect
      .poll(async () => JSON.parse((await sealpost(['status', '--home', world.phone, '--json'])).stdout.toString()), { timeout: 15_000 })
      .toMatchObject({ role: 'follower', state: 'live' })
    await world.relay.stop()
    const config = readConfig({
      SEALPOST_ADMIN_PORT: '0',
      SEALPOST_PORT: String(await findFreePort()),
      SEALPOST_DATA: join(world.folder, 'moved'),
      SEALPOST_SECRETS_FILE: world.relay.secrets_file,
      DATABASE_URL: world.relay.database_url,
    })
    const moved = await startServer(config, { logger: silent, test: true })
    try {
      expect((await run(['send', '--home', world.laptop, '--stream', 'moved'], { input: 'over there' })).code).toBe(75)
      const followed = await sealpost(['server', moved.url, '--home', world.laptop])
      expect(followed.stderr).toMatch(/uses that address from now on/)
      expect(followed.stdout.toString()).toContain(moved.url)
      await sealpost(['status', '--home', world.laptop])
      await sealpost(['server', moved.url, '--home', world.phone])
      expect(await tail.ended).toMatchObject({ code: 0, stdout: Buffer.from('over there') })
    } finally {
      await moved.stop()
      await world.relay.start()
    }
  })
})
