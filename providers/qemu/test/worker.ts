import { bootstrapOf, never, openMachines, order } from './host.js'
import { defaultPrograms } from '../src/programs.js'

// Stands for a provider process that a test may kill: does one thing to one machine, and says when it begins and when it is done.

const [directory = '', settings = '{}', qemu = '', deed = '', number = '1'] = process.argv.slice(2)
const wanted = order(Number(number))
const machines = await openMachines(directory, JSON.parse(settings) as object, {
  programs: { ...defaultPrograms, qemu },
})

process.stdout.write('begin\n')
switch (deed) {
  case 'create': {
    const name = await machines.define(wanted)
    await machines.prepare(name, bootstrapOf(wanted.hostname), never)
    await machines.boot(name, never)
    break
  }
  case 'on':
    await machines.powerOn(wanted.name, never)
    break
  case 'reboot':
    await machines.reboot(wanted.name, never)
    break
  case 'delete':
    await machines.delete(wanted.ownershipKey, never)
    break
  default:
    throw new Error(`what is "${deed}"?`)
}
process.stdout.write('done\n')
