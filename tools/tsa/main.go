// A timestamp authority for tests: the server of cmd/timestamp-server, with a key in memory and the system's clock.
//
// Not that command itself: it also serves its metrics, always on port 2112 of every interface, so that no two could run side by side.
package main

import (
	"flag"
	"log"
	"time"

	"github.com/sigstore/timestamp-authority/v2/pkg/server"
	"github.com/spf13/viper"
)

func main() {
	port := flag.Int("port", 0, "of 127.0.0.1")
	flag.Parse()
	viper.Set("timestamp-signer", "memory")
	viper.Set("timestamp-signer-hash", "sha256")
	viper.Set("max-request-body-size", 1<<20)
	serving := server.NewRestAPIServer("127.0.0.1", *port, []string{"http"}, false, 30*time.Second, 30*time.Second)
	if err := serving.Serve(); err != nil {
		log.Fatal(err)
	}
}
