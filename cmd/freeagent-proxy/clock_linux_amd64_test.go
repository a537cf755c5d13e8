package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canSkew: processes here may have clocks of their own.
const canSkew = true

// wrongClock makes this process's wall clock as wrong as a file says, from now on and as it then changes. The monotonic clock
// is left alone.
//
// libfaketime does not work with Go, which asks the kernel's vDSO for the time and no C library; and to build the program
// with another package time means to build all that it is made of, a minute of CI. So this changes the vDSO as this process
// has it in memory: clock_gettime begins with a jump to code that adds what the file says.
func wrongClock(name string) error {
	file, err := os.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	ahead, err := unix.Mmap(int(file.Fd()), 0, clockBytes, unix.PROT_READ, unix.MAP_SHARED) // for the process's life
	if err != nil {
		return fmt.Errorf("map %s: %w", name, err)
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	entry, room, err := timeInVDSO(memory)
	if err != nil {
		return fmt.Errorf("vDSO: %w", err)
	}
	code := []byte{
		0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228 (clock_gettime)
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi (CLOCK_REALTIME is 0)
		0x75, 0x10, // jne to ret
		0x48, 0xb9, // mov rcx, what follows
	}
	code = binary.LittleEndian.AppendUint64(code, uint64(uintptr(unsafe.Pointer(&ahead[0]))))
	code = append(code,
		0x48, 0x8b, 0x09, // mov rcx, [rcx]
		0x48, 0x01, 0x0e, // add [rsi], rcx
		0xc3, // ret
	)
	if room.Size < uint64(len(code)) {
		return fmt.Errorf("vDSO: %s has %d bytes, want %d", room.Name, room.Size, len(code))
	}
	if _, err := memory.WriteAt(code, int64(room.Value)); err != nil {
		return err
	}
	jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(room.Value-(entry.Value+5))) // jmp, from the next instruction
	_, err = memory.WriteAt(jump, int64(entry.Value))
	return err
}

// timeInVDSO finds what tells the time, and another function that Go does not call. Their values are addresses.
func timeInVDSO(memory *os.File) (entry, room elf.Symbol, err error) {
	start, image, err := vdso(memory)
	if err != nil {
		return entry, room, err
	}
	object, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return entry, room, err
	}
	symbols, err := object.DynamicSymbols()
	for _, s := range symbols {
		s.Value += start
		switch s.Name {
		case "__vdso_clock_gettime":
			entry = s
		case "__vdso_clock_getres":
			room = s
		}
	}
	if err == nil && (entry.Value == 0 || room.Value == 0) {
		err = errors.New("it has no __vdso_clock_gettime, or no __vdso_clock_getres")
	}
	return entry, room, err
}

// vdso reads the vDSO, and says where it is.
func vdso(memory *os.File) (start uint64, image []byte, err error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0, nil, err
	}
	for line := range strings.Lines(string(maps)) {
		var end uint64
		if !strings.Contains(line, "[vdso]") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
			return 0, nil, err
		}
		image = make([]byte, end-start)
		_, err := memory.ReadAt(image, int64(start))
		return start, image, err
	}
	return 0, nil, errors.New("there is none")
}
