// Resident is the one program of the test images that really run: it stays, and says what it sees.
//
//	resident              print "started", stay until told to go
//	resident say WORD...  print the words
//	resident cat FILE...  print files
//	resident ls DIR       print the names in a folder
//	resident env          print the environment
//	resident id           print user and group
//	resident echo         print every line of standard input
//	resident exit CODE    end with that code
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return stay()
	}
	verb, rest := arguments[0], arguments[1:]
	switch verb {
	case "say":
		fmt.Println(strings.Join(rest, " "))
	case "cat":
		for _, name := range rest {
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			os.Stdout.Write(content)
		}
	case "ls":
		for _, name := range rest {
			entries, err := os.ReadDir(name)
			if err != nil {
				return err
			}
			for _, entry := range entries {
				fmt.Println(entry.Name())
			}
		}
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "id":
		fmt.Println(os.Getuid(), os.Getgid())
	case "echo":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "exit":
		code, err := strconv.Atoi(strings.Join(rest, " "))
		if err != nil {
			return err
		}
		os.Exit(code)
	default:
		return fmt.Errorf("%q: say, cat, ls, env, id, echo, exit, or nothing at all", verb)
	}
	return nil
}

func stay() error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	host, _ := os.Hostname()
	fmt.Println("started on", host)
	fmt.Println("told to go:", <-told)
	return nil
}
