/**
 * What leaves the process. stdout carries what the command is for, and nothing else; everything said to a person goes to
 * stderr with control characters taken out, so that no name or sentence from elsewhere can steer a terminal.
 */
import { createWriteStream, fstatSync } from 'node:fs'
import type { Writable } from 'node:stream'
import type { Bytes } from '@sealpost/protocol'
import { type Failure, UsageError } from './exit-codes.ts'

/** The reader of stdout has gone (`sealpost tail | head -1`): a quiet end. */
export class OutputClosed extends Error {
  override readonly name = 'OutputClosed'
}

let stdout: Writable | undefined

/**
 * Where `print` writes. A disk that gets full takes a part of a write without an error; `process.stdout` of a file drops the rest
 * and reports success, while a file stream goes on with the rest until that fails.
 */
function openStdout(): Writable {
  if (!isFile(process.stdout.fd)) return process.stdout
  const file = createWriteStream('', { fd: process.stdout.fd, autoClose: false })
  // the callback of `write` reports the failure
  file.on('error', () => {})
  return file
}

function isFile(fd: number): boolean {
  try {
    return fstatSync(fd).isFile()
  } catch {
    return false
  }
}

/** Writes to stdout; resolves when the system has taken all of the bytes, so a slow reader holds the writer up. Throws what failed. */
export function print(data: Bytes | string): Promise<void> {
  stdout ??= openStdout()
  const out = stdout
  return new Promise((resolve, reject) => {
    out.write(data, (error) => {
      if (error === undefined || error === null) resolve()
      else reject('code' in error && error.code === 'EPIPE' ? new OutputClosed('stdout is closed', { cause: error }) : error)
    })
  })
}

/** The callback of `write` reports the failure; without a listener it would also end the process. */
export function watchOutput(): void {
  process.stdout.on('error', () => {})
  process.stderr.on('error', () => {})
}

export function say(text: string): void {
  process.stderr.write(`${plain(text)}\n`)
}

export function sayFailure(failure: Failure): void {
  say(`sealpost: ${failure.message}\n  ${failure.hint}`)
}

/** A line of JSON on stderr: gaps and alarms of `tail --json`. */
export function sayJson(value: unknown): void {
  process.stderr.write(`${JSON.stringify(value)}\n`)
}

const CONTROLS = /(?![\n\t])[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu

/** Without control and direction characters; line feeds and tabs stay. */
export function plain(text: string): string {
  return text.replace(CONTROLS, '\u{fffd}')
}

/** Whether a person can be asked. */
export function isInteractive(): boolean {
  return process.stdin.isTTY && process.stdout.isTTY
}

/** Asks a yes-or-no question; false when the person cancels. */
export async function ask(message: string, signal: AbortSignal): Promise<boolean> {
  if (!isInteractive()) throw new UsageError('nobody can be asked here', 'use --yes to go on without comparing')
  const { confirm, isCancel } = await import('@clack/prompts')
  const answer = await confirm({ message: plain(message), initialValue: false, signal })
  return !isCancel(answer) && answer
}

/** Columns padded to their widest cell. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, widthOf(cell))
  return rows
    .map((row) => row.map((cell, i) => (i === row.length - 1 ? cell : cell + ' '.repeat((widths[i] ?? 0) - widthOf(cell) + 2))).join(''))
    .join('\n')
}

const segmenter = new Intl.Segmenter('en')

function widthOf(text: string): number {
  let width = 0
  for (const { segment } of segmenter.segment(text))
    width += /\p{Extended_Pictographic}|[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uff00-\uff60]/u.test(segment) ? 2 : 1
  return width
}
