import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { run, sealpost, useWorld } from '@sealpost/testing/clients/cli-world'

const world = useWorld()

describe('an account from its first to its last command', () => {
  test('rename, token, export, decrypt, recover, delete-account (B08, G04, G05)', { timeout: 60_000 }, async () => {
    const home = join(world.folder, 'first')
    const words = join(world.folder, 'own-words.txt')
    const server = `${world.relay.url}/#${Buffer.from(world.relay.server_key).toString('base64url')}`
    await sealpost(['init', '--home', home, '--server', server, '--name', 'laptop', '--recovery-file', words])
    await sealpost(['send', '--home', home, '--lines'], { input: 'one\ntwo\n' })

    expect((await sealpost(['rename', '--home', home, 'laptop', 'desk'])).stderr).toMatch(/^"laptop" \([0-9a-f-]{36}\) is now "desk"/)
    expect((await run(['rename', '--home', home, 'nobody', 'x'])).stderr).toContain('this account has no device "nobody"')

    const token = (await sealpost(['token', '--home', home])).stdout.toString().trim()
    const user = await fetch(`${world.relay.url}/api/user`, { headers: { authorization: `Bearer ${token}` } })
    expect(await user.json()).toMatchObject({ devices: 1, events: 2, streams: 1 })
    expect(JSON.parse((await sealpost(['token', '--home', home, '--json'])).stdout.toString())).toMatchObject({ expires_in: 600 })

    const file = join(world.folder, 'all.ndjson')
    expect((await sealpost(['export', '--home', home, file])).stderr).toMatch(/^exported .*2 log_entry.*2 event/)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect((await sealpost(['export', '--home', home, '-'])).stdout.toString()).toContain('"kind":"end"')
    const opened = (await sealpost(['export', 'decrypt', '--home', home, file])).stdout.toString().trim().split('\n')
    expect(opened.map((line) => JSON.parse(line).data)).toEqual(['one\n', 'two\n'])

    const text = await readFile(file, 'utf8')
    const cut = join(world.folder, 'cut.ndjson')
    await writeFile(cut, text.split('\n').slice(0, -2).join('\n'))
    expect(await run(['export', 'decrypt', '--home', home, cut])).toMatchObject({
      code: 6,
      stderr: expect.stringContaining('the export is cut'),
    })
    await writeFile(
      cut,
      text.replace(/"encrypted_payload":"..../, (found) => `${found.slice(0, -4)}AAAA`),
    )
    const changed = await run(['export', 'decrypt', '--home', home, cut])
    expect(changed).toMatchObject({ code: 6, stderr: expect.stringContaining('ALARM') })
    expect(await run(['export', '--home', home, join(world.folder, 'no', 'such', 'folder')])).toMatchObject({ code: 74 })

    const back = join(world.folder, 'back')
    const recovered = await sealpost(['recover', '--home', back, '--server', server, '--name', 'desk', '--recovery-file', words])
    expect(recovered.stderr).toContain('the account is yours again')
    expect((await sealpost(['tail', '--home', back, '--from', 'start', '--count', '2'])).stdout.toString()).toBe('one\ntwo\n')
    expect(await run(['status', '--home', home])).toMatchObject({ stderr: expect.stringContaining('revoked') })
    expect(await run(['recover', '--home', back, '--server', server, '--name', 'x', '--recovery-file', words])).toMatchObject({ code: 3 })
    await writeFile(words, 'abandon abandon')
    expect(
      await run(['recover', '--home', join(world.folder, 'b'), '--server', server, '--name', 'x', '--recovery-file', words]),
    ).toMatchObject({ stderr: expect.stringContaining('24 words') })

    expect(await run(['delete-account', '--home', back])).toMatchObject({ code: 2 })
    const deleted = await sealpost(['delete-account', '--home', back, '--yes'])
    expect(JSON.parse(deleted.stdout.toString())).toMatchObject({ account: 1, event: 2, device: 2 })
    expect(await run(['status', '--home', back])).toMatchObject({ code: 4 })
    await sealpost(['init', '--home', back, '--server', server, '--name', 'new'])
  })
})
