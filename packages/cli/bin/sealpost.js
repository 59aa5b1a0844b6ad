#!/usr/bin/env node
/**
 * The `sealpost` command: plain JavaScript for Node 20 and later. In a clone it installs what is missing and runs the
 * sources; as an installed package it runs `dist`. Working folder, stdio, signals and exit code are those of the command.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

// no inspector: see main.ts, which is not loaded yet
process.on('SIGUSR1', () => {})

const cli = dirname(dirname(fileURLToPath(import.meta.url)))
const script = join(cli, '..', '..', 'scripts', 'run.mjs')
const source = join(cli, 'src', 'main.ts')
const args = process.argv.slice(2)

if (existsSync(source) && existsSync(script)) {
  const { ensureInstalled, findNode, runProgram } = await import(pathToFileURL(script).href)
  await ensureInstalled()
  const { node, flags } = findNode()
  process.exitCode = await runProgram(node, [...flags, source, ...args])
} else {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 22 || (major === 22 && minor < 15)) {
    process.stderr.write(`Sealpost needs Node 22.15 or later; this is ${process.versions.node}\n`)
    process.exit(2)
  }
  await import(pathToFileURL(join(cli, 'dist', 'main.js')).href)
}
