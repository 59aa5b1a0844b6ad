import { describe, expect, test } from 'vitest'
import { formatTable, plain } from './output.ts'

describe('what is said to a person', () => {
  test('has no control or direction characters', () => {
    expect(plain('a\u001b[2Jb\u202ec\u0007\u009bd\ne\tf')).toBe('a\ufffd[2Jb\ufffdc\ufffd\ufffdd\ne\tf')
  })

  test('a table is aligned, wide characters count twice', () => {
    expect(
      formatTable([
        ['a', 'bb', 'c'],
        ['日本', 'b', 'cc'],
      ]),
    ).toBe('a     bb  c\n日本  b   cc')
  })
})
