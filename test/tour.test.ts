/** The tour of the README, command by command, as a reader would type it: only the port and the pairing code differ. */
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ROOT, startProgram } from '@sealpost/testing/components/programs'

test('the tour of the README works as it is written', { timeout: 120_000 }, async () => {
  const readme = await readFile(join(ROOT, 'README.md'), 'utf8')
  const start = blocksOf(section(readme, '## Start'))
  const tour = blocksOf(section(readme, '## A tour in two minutes'))
  expect(start).toEqual(['npm start'])
  expect(tour.length).toBeGreaterThan(8)

  const folder = await mkdtemp(join(tmpdir(), 'sealpost-tour-'))
  using relay = startProgram('npm', ['start', '--', '--port', '0', '--data', join(folder, 'data')], { ms_max: 120_000 })
  try {
    const url = (await relay.printed(/^listening on (http:\S+)$/m))[1] ?? ''
    await relay.printed(/fingerprint: \S+/)
    let code = ''
    const said: string[] = []
    for (const line of tour) {
      const command = line
        .replaceAll('http://127.0.0.1:8787', url)
        .replaceAll('CODE', code)
        .replaceAll('npx sealpost', `node ${join(ROOT, 'packages/cli/bin/sealpost.js')}`)
      const program = startProgram('sh', ['-c', command], { cwd: folder })
      if (/sealpost pair/.test(line)) {
        code = (await program.printed(/[0-9A-Z]{4}(-[0-9A-Z]{4}){3}/))[0]
        continue
      }
      const ended = await program.ended
      // 75 says that the event waits in the outbox, as `--queue` asks
      expect(ended.code, `${line}\n${ended.stderr}`).toBe(line.includes('--queue') ? 75 : 0)
      said.push(ended.stdout.toString())
    }
    expect(said).toContain('hello, phone\n')
    expect(await readFile(join(folder, 'received.txt'), 'utf8')).toBe(Array.from({ length: 2000 }, (_, i) => `${i + 1}\n`).join(''))
    const words = await readFile(join(folder, 'laptop-recovery.txt'), 'utf8')
    expect(words.trim().split(/\s+/).length).toBeGreaterThanOrEqual(24)
    expect((await stat(join(folder, 'laptop-recovery.txt'))).mode & 0o777).toBe(0o600)
  } finally {
    relay.kill('SIGINT')
    expect((await relay.ended).code).toBe(0)
    await rm(folder, { recursive: true, force: true })
  }
})

function section(text: string, title: string): string {
  const at = text.indexOf(`${title}\n`)
  const next = text.indexOf('\n## ', at + 1)
  return text.slice(at, next === -1 ? undefined : next)
}

/** Every line of every `sh` block is one command. */
function blocksOf(text: string): string[] {
  return [...text.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap((match) => (match[1] ?? '').trim().split('\n'))
}
