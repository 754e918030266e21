"""What is counted of machine code, against figures counted by hand."""

from __future__ import annotations

from benchmarks.sass import Code

# A loop over packs, around which a short launch branches, with a slow way for each pack and a subroutine at the end.
LOOP = """
    .headerflags @"EF_CUDA_SM90"
    /*0000*/  LDC R1, c[0x0][0x28] ;             /* 0x00000a00ff017b82 */
    /*0010*/  ISETP.GE.AND P0, PT, R0, R1, PT ;
    /*0020*/  @P0 BRA 0x120 ;
    /*0030*/  HFMA2.MMA R3, -RZ, RZ, 0, 0 ;
    /*0040*/  ISETP.GE.U32.AND P1, PT, R2, 0x4, PT ;
    /*0050*/  @!P1 BRA 0xf0 ;
    /*0060*/  LDG.E.128 R8, desc[UR6][R4.64] ;
    /*0070*/  LDG.E.128 R12, desc[UR6][R6.64] ;
    /*0080*/  FFMA R3, R2, R1, R0 ;
    /*0090*/  @P2 FADD R20, R9, R13 ;
    /*00a0*/  LDG.E.128 R16, desc[UR6][R6.64+0x10] ;
    /*00b0*/  CALL.REL.NOINC 0x130 ;
    /*00c0*/  STG.E.128 desc[UR6][R4.64], R20 ;
    /*00d0*/  STG.E.128 desc[UR6][R4.64+0x10], R24 ;
    /*00e0*/  BRA 0x100 ;
    /*00f0*/  STG.E desc[UR6][R4.64], R20 ;
    /*0100*/  IADD3 R0, R0, 0x1, RZ ;
    /*0110*/  @!P0 BRA 0x30 ;
    /*0120*/  EXIT ;
    /*0130*/  DFMA R20, R20, R20, R20 ;
    /*0140*/  RET.REL.NODEC R2 0x0 ;
"""


def test_a_loop_over_packs_by_hand() -> None:
    code = Code(LOOP.splitlines())
    assert len(code.instructions) == 21
    assert code.packs == 2
    assert code.path_per_pack == 15 / 2  # 0x00 to 0xe0
    assert code.loop_per_pack == 14 / 2  # 0x30 to 0xe0, and 0x100 to 0x110
    assert code.fused == 1  # neither the constant nor what the subroutine does
    assert code.bytes_in_flight == 32  # the third load comes behind the first use


def test_loads_count_where_nothing_is_stored_and_a_longer_way_does_not() -> None:
    code = Code(
        """
    /*0000*/  @P0 BRA P1, 0x30 ;
    /*0010*/  MOV R0, R1 ;
    /*0020*/  MOV R0, R1 ;
    /*0030*/  LDG.E.128.CONSTANT R4, desc[UR6][R2.64] ;
    /*0040*/  BRA.DIV UR4, 0x70 ;
    /*0050*/  DFMA R8, R4, R6, R8 ;
    /*0060*/  BRA.U UP0, 0x30 ;
    /*0070*/  EXIT ;
""".splitlines()
    )
    assert (code.packs, code.path_per_pack, code.loop_per_pack) == (1, 3, 4)
    assert (code.fused, code.bytes_in_flight) == (1, 16)


def test_a_kernel_of_single_elements_has_no_main_block() -> None:
    code = Code(["/*0000*/ FFMA R0, R0, R0, R0 ;", "/*0010*/ STG.E desc[UR6][R4.64], R0 ;", "/*0020*/ EXIT ;"])
    assert code.main_block is None and code.packs == 0 and code.fused == 1
