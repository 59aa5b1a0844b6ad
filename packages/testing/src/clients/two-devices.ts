/** Two homes of one account on a relay, made by the commands a person would type. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sealpost, startSealpost } from '../components/programs.ts'

export type TwoDevices = { folder: string; laptop: string; phone: string; remove(): Promise<void> }

export async function makeFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'sealpost-e2e-'))
}

/** `init`, `pair` and `join` in two fresh homes below `folder`. */
export async function pairTwoDevices(url: string, folder: string): Promise<TwoDevices> {
  const laptop = join(folder, 'laptop')
  const phone = join(folder, 'phone')
  await sealpost(['init', '--home', laptop, '--server', url, '--name', 'laptop', '--recovery-file', join(folder, 'words.txt')])
  using pair = startSealpost(['pair', '--home', laptop, '--yes'])
  const code = (await pair.printed(/[0-9A-Z]{4}(-[0-9A-Z]{4}){3}/))[0]
  await sealpost(['join', code, '--home', phone, '--server', url, '--name', 'phone', '--yes'])
  const ended = await pair.ended
  if (ended.code !== 0) throw new Error(`pair ended with ${ended.code}:\n${ended.stderr}`)
  return { folder, laptop, phone, remove: () => rm(folder, { recursive: true, force: true }) }
}
