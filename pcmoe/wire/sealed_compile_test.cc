// pcmoe/wire/sealed_compile_test.cc: compiles without PCMOE_FORGED, must not compile with it.
#include <utility>

#include "pcmoe/wire/message.h"

namespace pcmoe::exchange {

wire::PartyIndex Receiver(const wire::Sealed& message) { return message.to(); }
wire::Sealed Passed(wire::Sealed message) { return message; }

#ifdef PCMOE_FORGED
wire::Sealed Forged(wire::Message message) { return wire::Sealed(1, std::move(message)); }
#endif

}  // namespace pcmoe::exchange
