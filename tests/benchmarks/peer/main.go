// Peer is the program that `make bench` compares the daemon with: a provisioner of in-tree NFS volumes on the Go library
// of Kubernetes' external provisioners. A volume is a directory below a local root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// The namespace of the lease.
const leaseNamespace = "default"

type provisioner struct {
	root   string // the local directory of the export
	server string // the NFS server, as volumes name it
	path   string // the exported path, as volumes name it
}

// Provision creates the directory of a claim.
func (p *provisioner) Provision(
	_ context.Context, options controller.ProvisionOptions,
) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	name := strings.Join([]string{claim.Namespace, claim.Name, options.PVName}, "-")
	directory := filepath.Join(p.root, name)
	if err := os.MkdirAll(directory, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	// The umask does not apply: pods of any user write to the directory.
	if err := os.Chmod(directory, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	volume := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			MountOptions:                  options.StorageClass.MountOptions,
			Capacity: v1.ResourceList{
				v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage],
			},
			PersistentVolumeSource: v1.PersistentVolumeSource{
				NFS: &v1.NFSVolumeSource{Server: p.server, Path: filepath.Join(p.path, name)},
			},
		},
	}
	return volume, controller.ProvisioningFinished, nil
}

// Delete removes the directory of a volume.
func (p *provisioner) Delete(_ context.Context, volume *v1.PersistentVolume) error {
	return os.RemoveAll(filepath.Join(p.root, filepath.Base(volume.Spec.NFS.Path)))
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the kubeconfig `file`")
	name := flag.String("provisioner-name", "", "the provisioner that storage classes name")
	root := flag.String("root", "", "the local `directory` of the export")
	server := flag.String("server", "", "the NFS server of the volumes")
	path := flag.String("path", "", "the exported path of the volumes")
	workers := flag.Int("workers", 100, "claims, and volumes to delete, that are worked on in parallel")
	qps := flag.Float64("qps", 0, "the client's limit of requests per second; 0 means none")
	burst := flag.Int("burst", 0, "the client's limit of requests in a burst; without a limit per second it has no effect")
	finalizer := flag.Bool("finalizer", false, "set a finalizer on volumes, and remove it after their directory")
	elect := flag.Bool("leader-election", true, "take the lease before any work")
	flag.Parse()
	if *kubeconfig == "" || *name == "" || *root == "" || *server == "" || *path == "" {
		fail(fmt.Errorf("--kubeconfig, --provisioner-name, --root, --server and --path are required"))
	}

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		fail(err)
	}
	config.QPS, config.Burst = float32(*qps), *burst
	if *qps == 0 {
		config.QPS = -1 // client-go reads 0 as its default, 5 per second
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		fail(err)
	}
	ctx := context.Background()
	controller.NewProvisionController(
		ctx, client, *name, &provisioner{root: *root, server: *server, path: *path},
		controller.Threadiness(*workers),
		controller.AddFinalizer(*finalizer),
		controller.LeaderElection(*elect),
		controller.LeaderElectionNamespace(leaseNamespace),
	).Run(ctx)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "peer:", err)
	os.Exit(1)
}
