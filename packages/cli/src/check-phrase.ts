/** The check phrase of a pairing: four emoji with their names, compared by people on both screens. */
import { ask, say } from './output.ts'

export type Phrase = { emoji: readonly string[]; names: readonly string[] }

export function formatPhrase({ emoji, names }: Phrase): string {
  return emoji.map((sign, i) => `${sign} ${names[i] ?? ''}`).join('   ')
}

/** Shows the phrase and asks; with `skip` the comparison is left out, and this says so. */
export async function confirmPhrase(phrase: Phrase, question: string, skip: boolean, signal: AbortSignal): Promise<boolean> {
  say(`check phrase: ${formatPhrase(phrase)}`)
  if (!skip) return ask(question, signal)
  say('the comparison was skipped (--yes): whoever knew the code could have taken the place of the other device')
  return true
}
