// Command load posts one body again and again to an API server of this machine, from N clients, and prints latencies as JSON.
//
// One process with keep-alive connections, so that what is measured is the server: a client in Python would cost as much as the webhook.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sort"
	"sync"
	"time"
)

func main() {
	target := flag.String("url", "", "where to POST")
	ca := flag.String("ca", "", "CA file")
	token := flag.String("token", "", "bearer token")
	file := flag.String("body", "", "file with the body")
	clients := flag.Int("clients", 1, "clients side by side")
	count := flag.Int("count", 1000, "requests in all (at most 100000)")
	warm := flag.Int("warm", 50, "requests before the clock starts")
	flag.Parse()
	if *count > 100000 {
		*count = 100000
	}
	where, err := url.Parse(*target)
	must(err)
	if !isOurs(net.ParseIP(where.Hostname())) {
		must(fmt.Errorf("%s is not an address of this machine", where.Hostname()))
	}
	body, err := os.ReadFile(*file)
	must(err)
	pem, err := os.ReadFile(*ca)
	must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	// HTTP/1.1 with a connection per client: with HTTP/2 all clients share one connection, and its lock.
	client := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool},
		MaxIdleConnsPerHost: *clients,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
	}}
	failures, example := 0, ""
	var lock sync.Mutex
	run := func(total int) []time.Duration {
		work := make(chan struct{}, total)
		for i := 0; i < total; i++ {
			work <- struct{}{}
		}
		close(work)
		var group sync.WaitGroup
		all := make([][]time.Duration, *clients)
		for c := 0; c < *clients; c++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for range work {
					request, _ := http.NewRequest("POST", *target, bytes.NewReader(body))
					request.Header.Set("Content-Type", "application/json")
					request.Header.Set("Authorization", "Bearer "+*token)
					start := time.Now()
					response, err := client.Do(request)
					if err == nil {
						var answer []byte
						answer, err = io.ReadAll(response.Body)
						response.Body.Close()
						if err == nil && response.StatusCode >= 300 {
							err = fmt.Errorf("%s: %.600s", response.Status, answer)
						}
					}
					all[c] = append(all[c], time.Since(start))
					if err != nil {
						lock.Lock()
						failures++
						example = err.Error()
						lock.Unlock()
					}
				}
			}()
		}
		group.Wait()
		var flat []time.Duration
		for _, some := range all {
			flat = append(flat, some...)
		}
		return flat
	}
	run(*warm)
	failures, example = 0, ""
	start := time.Now()
	times := run(*count)
	elapsed := time.Since(start)
	sort.Slice(times, func(a, b int) bool { return times[a] < times[b] })
	sum := time.Duration(0)
	for _, each := range times {
		sum += each
	}
	at := func(share float64) float64 { return float64(times[int(share*float64(len(times)-1))]) / 1e6 }
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"average": float64(sum) / float64(len(times)) / 1e6, "p50": at(.5), "p95": at(.95), "p99": at(.99),
		"perSecond": float64(len(times)) / elapsed.Seconds(), "failures": failures, "example": example,
	}))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// isOurs says whether packets to an address stay on this machine: loopback, and the addresses of its interfaces.
func isOurs(ip net.IP) bool {
	addresses, err := net.InterfaceAddrs()
	must(err)
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.Equal(ip) {
			return true
		}
	}
	return ip != nil && ip.IsLoopback()
}
