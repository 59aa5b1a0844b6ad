/** The `sealpost` command: parses, runs one command, ends with a documented exit code (`exit-codes.ts`). */
import { watchOutput } from './output.ts'
import { createProgram, report } from './program.ts'

async function main(argv: readonly string[]): Promise<void> {
  ignoreInspection()
  watchOutput()
  try {
    await createProgram().parseAsync([...argv])
  } catch (error) {
    process.exitCode = report(error)
  }
  // A pending read of stdin would keep the process; everything written is with the system by now.
  process.exit()
}

/**
 * Without a listener Node answers this signal with an inspector, which lets every user of the machine read the keys of the process. Who
 * wants one starts Node with `--inspect`.
 */
function ignoreInspection(): void {
  process.on('SIGUSR1', () => {})
}

await main(process.argv)
