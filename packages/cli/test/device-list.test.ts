import { describe, expect, test } from 'vitest'
import { run, sealpost, startSealpost, useWorld } from '@sealpost/testing/clients/cli-world'

const world = useWorld()

/** Two devices of the account: one that is away, and one that is added meanwhile. */
async function addWhileAway(name: string): Promise<{ away: string; added: string }> {
  const away = await world.addDevice(`away-from-${name}`)
  await world.addDevice(name)
  const listed = await sealpost(['devices', '--home', world.laptop, '--json'])
  const lines = listed.stdout.toString().trim().split('\n')
  const devices = lines.map((line) => JSON.parse(line) as { name: string; device_id: string })
  return { away, added: devices.find((device) => device.name === name)!.device_id }
}

describe('a device that was away while another was added', () => {
  test('revokes it by its name with the first command', async () => {
    const { away, added } = await addWhileAway('stolen')
    const revoked = await run(['revoke', 'stolen', '--home', away])
    expect(revoked).toMatchObject({ code: 0, stderr: `revoked "stolen" (${added})\n` })
  })

  test('revokes it by the start of its id with the first command', async () => {
    const { away, added } = await addWhileAway('stolen too')
    const revoked = await run(['revoke', added.slice(0, -2), '--home', away])
    expect(revoked).toMatchObject({ code: 0, stderr: `revoked "stolen too" (${added})\n` })
  })

  test('renames it with the first command', async () => {
    const { away } = await addWhileAway('misnamed')
    expect(await run(['rename', 'misnamed', 'named', '--home', away])).toMatchObject({ code: 0 })
  })

  test('lists it, and shows the status of the new list, with the first command', async () => {
    const { away } = await addWhileAway('listed')
    expect((await sealpost(['devices', '--home', away])).stdout.toString()).toMatch(/^listed /m)
    const { away: second } = await addWhileAway('shown')
    const [there, here] = await Promise.all(
      [world.laptop, second].map(async (home) => JSON.parse((await sealpost(['status', '--home', home, '--json'])).stdout.toString())),
    )
    expect(here).toMatchObject({ log_seq: there.log_seq, device_list_fingerprint: there.device_list_fingerprint })
  })

  test('revokes it through the process that holds the connection', async () => {
    const { away } = await addWhileAway('seen')
    using tail = startSealpost(['tail', '--home', away])
    await expect
      .poll(async () => JSON.parse((await sealpost(['status', '--home', away, '--json'])).stdout.toString()), { timeout: 15_000 })
      .toMatchObject({ role: 'follower', state: 'live' })
    const unseen = await world.addDevice('unseen')
    expect(await run(['revoke', 'unseen', '--home', away])).toMatchObject({ code: 0 })
    expect((await run(['send', '--home', unseen], { input: 'x' })).code).toBe(4)
    tail.kill('SIGINT')
    await tail.ended
  })
})
