// Command generator loads an etcd-like server over HTTP/JSON in ways that wrk cannot: at a fixed
// rate, with watchers, with leases. It prints START when the load begins, and in the end RESULT
// with what was seen, as JSON. See ../generator.py, which runs it.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"syscall"
)

// options are the same for all modes; each uses some of them.
type options struct {
	address     string
	rate        int
	seconds     int
	connections int
	outstanding int
	watchers    int
	leases      int
}

var modes = map[string]func(*loop, options) (any, error){
	"puts":   runPuts,
	"watch":  runWatch,
	"leases": runLeases,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	mode, load, err := parse(arguments)
	if err != nil {
		return err
	}
	loop, err := newLoop()
	if err != nil {
		return err
	}
	found, err := mode(loop, load)
	if err != nil {
		return err
	}
	text, err := json.Marshal(found)
	if err != nil {
		return err
	}
	fmt.Printf("RESULT %s\n", text)
	return nil
}

func parse(arguments []string) (func(*loop, options) (any, error), options, error) {
	var load options
	flags := flag.NewFlagSet("generator", flag.ContinueOnError)
	flags.StringVar(&load.address, "address", "", "`host:port` of the node to load")
	flags.IntVar(&load.rate, "rate", 1_000, "puts a second (puts, watch)")
	flags.IntVar(&load.seconds, "seconds", 3, "how long")
	flags.IntVar(&load.connections, "connections", 64, "how many calls at a time")
	flags.IntVar(&load.outstanding, "outstanding", 10_000,
		"how many calls may be under way or wait for a connection (puts, watch)")
	flags.IntVar(&load.watchers, "watchers", 1_000, "how many streams (watch)")
	flags.IntVar(&load.leases, "leases", 10_000, "how many leases (leases)")
	if len(arguments) == 0 {
		return nil, load, fmt.Errorf("say what to do: puts, watch or leases")
	}
	mode, known := modes[arguments[0]]
	if !known {
		return nil, load, fmt.Errorf("there is no mode %q: puts, watch or leases", arguments[0])
	}
	if err := flags.Parse(arguments[1:]); err != nil {
		return nil, load, err
	}
	return mode, load, load.check()
}

func (o options) check() error {
	for name, value := range map[string]int{
		"rate": o.rate, "seconds": o.seconds, "connections": o.connections,
		"outstanding": o.outstanding, "watchers": o.watchers, "leases": o.leases,
	} {
		if value < 1 {
			return fmt.Errorf("-%s must be at least 1", name)
		}
	}
	if o.rate*o.seconds > 99_999_999 {
		return fmt.Errorf("more than 99,999,999 puts cannot be told apart")
	}
	return nil
}

// announceStart says that the load begins, and returns what we have used up until now.
func announceStart() int64 {
	fmt.Println("START")
	return ownCPU()
}

// ownCPU is what this process has used, user and kernel time, in microseconds.
func ownCPU() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return (usage.Utime.Nano() + usage.Stime.Nano()) / 1_000
}
